//! Rejections as typed errors.

use super::OnReject;
use crate::body::ResponseContext;
use crate::error::{OffloadError, Rejection};

/// Answers rejections with [`OffloadError::Rejected`]. The service's own errors are [`OffloadError::Inner`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Errors;

impl<Req, Res, Err> OnReject<Req, Res, Err> for Errors {
    type Hint = ();
    type Response = Res;
    type Error = OffloadError<Err>;

    fn hint(&self, _request: &Req) {}

    fn reject(&self, _hint: (), rejection: Rejection) -> Result<Res, Self::Error> {
        Err(OffloadError::Rejected(rejection))
    }

    fn pass(&self, response: Res, _context: &ResponseContext) -> Res {
        response
    }

    fn fail(&self, error: Err) -> Self::Error {
        OffloadError::Inner(error)
    }
}
