//! Rejections as HTTP responses.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::{OnReject, ResponseFormat};
use crate::body::{BoxError, ResponseBody, ResponseContext};
use crate::error::Rejection;

/// Answers rejections with responses, and leaves the error type of the service as it is. This is the default.
///
/// A request with the content type `application/grpc` gets a gRPC status without a body. Every other request gets a
/// problem document with the fields `pool`, `reason` and `started`: `false` means that the handler never started, so
/// that trying again is safe. A response with a status of 503 has a `Retry-After` in whole seconds. A response over
/// HTTP/1 says `connection: close` if the body of its request may be unread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Responses;

impl<B, RB, E> OnReject<Request<B>, Response<RB>, E> for Responses
where
    RB: Body + Send + 'static,
    RB::Data: From<Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    type Hint = ResponseFormat;
    type Response = Response<ResponseBody<RB>>;
    type Error = E;

    fn hint(&self, request: &Request<B>) -> ResponseFormat {
        ResponseFormat::of(request)
    }

    fn reject(&self, format: ResponseFormat, rejection: Rejection) -> Result<Self::Response, E> {
        Ok(format.respond(&rejection).map(ResponseBody::own))
    }

    fn pass(&self, response: Response<RB>, context: &ResponseContext) -> Self::Response {
        context.wrap(response)
    }

    fn fail(&self, error: E) -> E {
        error
    }
}
