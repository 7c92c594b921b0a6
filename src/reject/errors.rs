//! Rejections as typed errors, for services that do not speak HTTP.

use super::Reject;
use crate::error::{OffloadError, Rejection};

/// Answers rejections with [`OffloadError::Rejected`]; the service's own errors are [`OffloadError::Inner`].
///
/// It knows nothing of HTTP: a [`Deadline`](crate::Deadline) or [`Priority`](crate::Priority) among a request's
/// extensions, and the headers that a pool trusts, count only with the other answers. A response counts as `ok` whatever
/// its status, and the task log calls a request by its type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Errors;

impl<Req, Res, Err> Reject<Req, Res, Err> for Errors {
    type Hint = ();
    type Response = Res;
    type Error = OffloadError<Err>;

    fn hint(&self, _request: &Req) {}

    fn reject(&self, _hint: (), rejection: Rejection) -> Result<Res, Self::Error> {
        Err(OffloadError::Rejected(rejection))
    }

    fn pass(&self, response: Res) -> Res {
        response
    }

    fn fail(&self, error: Err) -> Self::Error {
        OffloadError::Inner(error)
    }
}
