//! Rejections as HTTP responses in the body type of the service.

use ::http::{Request, Response};
use bytes::Bytes;

use super::responses::{protocol_of, response_to};
use super::{Protocol, Reject, http};
use crate::config::Trust;
use crate::error::Rejection;
use crate::headers::BadHeader;
use crate::terms::Terms;

/// Answers rejections as [`Responses`](super::Responses) does, in the body type of the service, which can then be made
/// from bytes: the response of the whole has the type that the service's own has.
#[derive(Clone, Copy, Debug, Default)]
pub struct SameBody;

impl<B, RB, E> Reject<Request<B>, Response<RB>, E> for SameBody
where
    RB: From<Bytes>,
{
    type Hint = Protocol;
    type Response = Response<RB>;
    type Error = E;

    fn hint(&self, request: &Request<B>) -> Protocol {
        protocol_of(request)
    }

    fn reject(&self, hint: Protocol, rejection: Rejection) -> Result<Response<RB>, E> {
        Ok(response_to(hint, &rejection).map(|mut body| RB::from(body.take().unwrap_or_default())))
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

    fn terms(&self, request: &mut Request<B>, trust: &Trust) -> Result<Terms, BadHeader> {
        Terms::of_request(request, trust)
    }
}
