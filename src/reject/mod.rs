//! Responses to rejected requests, and the protocols of requests.
//!
//! Two traits, one for each question:
//!
//! | trait | answers | implementations |
//! |---|---|---|
//! | [`OnReject`] | What does the caller of a rejected request get? | [`Responses`] (the default), [`SameBody`], [`RejectWith`], [`Errors`] |
//! | [`Protocol`] | Which deadline, priority and caller does a request have? Which results count as errors? What is a request called in the log? | [`Http`] (the default), [`AnyRequest`] |
//!
//! A layer with another response keeps its protocol, and with it deadlines, priorities and the numbers.
//!
//! # Writing an `OnReject`
//!
//! [`PoolLayer::reject_with`](crate::PoolLayer::reject_with) takes a function of the [`Rejection`](crate::Rejection).
//! Implement [`OnReject`] if the response depends on the request:
//!
//! ```
//! use http::header::CONTENT_TYPE;
//! use http::{HeaderValue, Request, Response};
//! use tower_offload::reject::{OnReject, ResponseBody, ResponseContext, ResponseFormat};
//! use tower_offload::{Cpu, PoolLayer, Pools, Rejection};
//!
//! /// Browsers get a page, every other client the default response.
//! #[derive(Clone)]
//! struct Pages;
//!
//! impl<B, E> OnReject<Request<B>, Response<String>, E> for Pages {
//!     type Hint = (bool, ResponseFormat);
//!     type Response = Response<ResponseBody<String>>;
//!     type Error = E;
//!
//!     fn hint(&self, request: &Request<B>) -> Self::Hint {
//!         let accept = request.headers().get("accept");
//!         (accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/html")), ResponseFormat::of(request))
//!     }
//!
//!     fn reject(&self, (html, format): Self::Hint, rejection: Rejection) -> Result<Self::Response, E> {
//!         let mut response = format.respond(&rejection).map(|body| body.into_string());
//!         if html {
//!             response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
//!             *response.body_mut() = "<h1>Too many requests, please try again</h1>".to_owned();
//!         }
//!         Ok(response.map(ResponseBody::from))
//!     }
//!
//!     // Without `wrap`, a policy for bodies has no effect.
//!     fn pass(&self, response: Response<String>, context: &ResponseContext) -> Self::Response {
//!         context.wrap(response)
//!     }
//!
//!     fn fail(&self, error: E) -> E {
//!         error
//!     }
//! }
//!
//! let layer = PoolLayer::<Cpu>::new(&Pools::default()).reject_by(Pages);
//! # let _ = layer;
//! ```

#[cfg(feature = "axum")]
mod axum;
mod errors;
mod format;
mod function;
mod http;
mod on_reject;
mod protocol;
mod reason;
mod responses;
mod retry_after;
mod same_body;
#[cfg(feature = "tonic")]
mod tonic;

pub use self::errors::Errors;
pub use self::format::ResponseFormat;
pub use self::function::RejectWith;
pub use self::http::Http;
pub use self::on_reject::OnReject;
pub use self::protocol::{AnyRequest, Protocol};
pub use self::responses::Responses;
pub use self::same_body::SameBody;
pub use crate::body::{ResponseBody, ResponseContext};
pub use crate::headers::BadHeader;
pub use crate::terms::Terms;
