//! Rejections as HTTP responses in the body type of the service.

use bytes::Bytes;
use http::{Request, Response};

use super::{OnReject, ResponseFormat};
use crate::body::ResponseContext;
use crate::error::Rejection;

/// Answers rejections as [`Responses`](super::Responses) does, in the body type of the service, which must be
/// [`From<Bytes>`]. The response type stays that of the service.
#[derive(Clone, Copy, Debug, Default)]
pub struct SameBody;

impl<B, RB, E> OnReject<Request<B>, Response<RB>, E> for SameBody
where
    RB: From<Bytes>,
{
    type Hint = ResponseFormat;
    type Response = Response<RB>;
    type Error = E;

    fn hint(&self, request: &Request<B>) -> ResponseFormat {
        ResponseFormat::of(request)
    }

    fn reject(&self, format: ResponseFormat, rejection: Rejection) -> Result<Response<RB>, E> {
        Ok(format.respond(&rejection).map(|body| RB::from(body.into_bytes())))
    }

    fn pass(&self, response: Response<RB>, _context: &ResponseContext) -> Response<RB> {
        response
    }

    fn fail(&self, error: E) -> E {
        error
    }
}
