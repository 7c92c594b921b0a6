//! Rejections as the user's function answers them.

use std::fmt;

use super::Reject;
use crate::error::Rejection;

/// Answers rejections with what a function makes of them: a response of the service's own type.
#[derive(Clone, Copy)]
pub struct RejectWith<F>(F);

impl<F> RejectWith<F> {
    pub(crate) const fn new(function: F) -> Self {
        Self(function)
    }
}

impl<F, Req, Res, Err> Reject<Req, Res, Err> for RejectWith<F>
where
    F: Fn(Rejection) -> Res + Clone,
{
    type Hint = ();
    type Response = Res;
    type Error = Err;

    fn hint(&self, _request: &Req) {}

    fn reject(&self, _hint: (), rejection: Rejection) -> Result<Res, Err> {
        Ok((self.0)(rejection))
    }

    fn pass(&self, response: Res) -> Res {
        response
    }

    fn fail(&self, error: Err) -> Err {
        error
    }
}

impl<F> fmt::Debug for RejectWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RejectWith").field(&std::any::type_name::<F>()).finish()
    }
}
