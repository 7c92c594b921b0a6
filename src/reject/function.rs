//! Rejections as the user's function answers them.

use std::fmt;

use ::http::{Request, Response};

use super::{Reject, http};
use crate::config::Trust;
use crate::error::Rejection;
use crate::headers::BadHeader;
use crate::terms::Terms;

/// Answers the rejections of HTTP requests with what a function makes of them: a response of the service's own type.
#[derive(Clone, Copy)]
pub struct RejectWith<F>(F);

impl<F> RejectWith<F> {
    pub(crate) const fn new(function: F) -> Self {
        Self(function)
    }
}

impl<F, B, RB, E> Reject<Request<B>, Response<RB>, E> for RejectWith<F>
where
    F: Fn(Rejection) -> Response<RB> + Clone,
{
    type Hint = ();
    type Response = Response<RB>;
    type Error = E;

    fn hint(&self, _request: &Request<B>) {}

    fn terms(&self, request: &mut Request<B>, trust: &Trust) -> Result<Terms, BadHeader> {
        Terms::of_request(request, trust)
    }

    fn reject(&self, _hint: (), rejection: Rejection) -> Result<Response<RB>, E> {
        Ok((self.0)(rejection))
    }

    fn pass(&self, response: Response<RB>) -> Response<RB> {
        response
    }

    fn fail(&self, error: E) -> E {
        error
    }

    fn failed(result: &Result<Response<RB>, E>) -> bool {
        http::failed(result)
    }

    fn describe(&self, request: &Request<B>) -> String {
        http::describe(request)
    }
}

impl<F> fmt::Debug for RejectWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RejectWith").field(&std::any::type_name::<F>()).finish()
    }
}
