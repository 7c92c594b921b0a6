//! Rejections answered by a function of the application.

use std::fmt;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::{OnReject, ResponseFormat};
use crate::body::{BoxError, ResponseBody, ResponseContext};
use crate::error::Rejection;

/// Answers the rejections of HTTP requests with a function that makes a response in the body type of the service.
///
/// A response over HTTP/1 gets a `connection: close` if the body of its request may be unread.
#[derive(Clone, Copy)]
pub struct RejectWith<F>(F);

impl<F> RejectWith<F> {
    pub(crate) const fn new(function: F) -> Self {
        Self(function)
    }
}

impl<F, B, RB, E> OnReject<Request<B>, Response<RB>, E> for RejectWith<F>
where
    F: Fn(Rejection) -> Response<RB> + Clone + Send + Sync + 'static,
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
        let mut response = (self.0)(rejection);
        format.finish(&mut response);
        Ok(response.map(ResponseBody::inner))
    }

    fn pass(&self, response: Response<RB>, context: &ResponseContext) -> Self::Response {
        context.wrap(response)
    }

    fn fail(&self, error: E) -> E {
        error
    }
}

impl<F> fmt::Debug for RejectWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RejectWith").field(&std::any::type_name::<F>()).finish()
    }
}
