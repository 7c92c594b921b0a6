//! What a caller is told when the pool gives no answer: an HTTP or gRPC response, an error, or what the user makes of it.

mod body;
mod cause;
mod errors;
mod function;
mod http;
mod responses;
mod same_body;

use crate::config::Trust;
use crate::error::Rejection;
use crate::headers::BadHeader;
use crate::terms::Terms;

pub use self::body::ResponseBody;
pub use self::errors::Errors;
pub use self::function::RejectWith;
pub use self::responses::{Protocol, Responses};
pub use self::same_body::SameBody;

/// Turns a [`Rejection`] into what the caller of a service gets.
///
/// [`Responses`] is the default; [`Errors`] is for services that do not speak HTTP; [`RejectWith`] holds a function of
/// the user's. Write your own if the answer depends on the request:
///
/// ```
/// use http::{Request, Response};
/// use tower_offload::{BadHeader, Reject, Rejection, Terms, Trust};
///
/// /// Browsers get a page, everybody else a bare status.
/// #[derive(Clone)]
/// struct Pages;
///
/// impl<B, E> Reject<Request<B>, Response<String>, E> for Pages {
///     type Hint = bool;
///     type Response = Response<String>;
///     type Error = E;
///
///     fn hint(&self, request: &Request<B>) -> bool {
///         request.headers().get("accept").is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"))
///     }
///
///     fn reject(&self, html: bool, rejection: Rejection) -> Result<Response<String>, E> {
///         let page = if html { format!("<h1>{rejection}</h1>") } else { String::new() };
///         let mut response = Response::new(page);
///         *response.status_mut() = rejection.status();
///         Ok(response)
///     }
///
///     fn pass(&self, response: Response<String>) -> Response<String> {
///         response
///     }
///
///     fn fail(&self, error: E) -> E {
///         error
///     }
///
///     // Deadlines and priorities count as they do by default...
///     fn terms(&self, request: &mut Request<B>, trust: &Trust) -> Result<Terms, BadHeader> {
///         Terms::of_request(request, trust)
///     }
///
///     // ...and so do a handler's answers of 500 and above.
///     fn failed(result: &Result<Response<String>, E>) -> bool {
///         result.as_ref().map_or(true, |response| response.status().is_server_error())
///     }
/// }
/// ```
pub trait Reject<Req, Res, Err>: Clone {
    /// What is to be remembered of a request, which is gone when it is rejected.
    type Hint;
    /// The response of the whole.
    type Response;
    /// The error of the whole.
    type Error;

    /// Takes from the request what the answer will need.
    fn hint(&self, request: &Req) -> Self::Hint;

    /// What the request asks of its pool, which believes the headers that `trust` names: by default, nothing. For HTTP
    /// see [`Terms::of_request`].
    ///
    /// # Errors
    ///
    /// If such a header cannot be read, and the pool wants these refused.
    fn terms(&self, request: &mut Req, trust: &Trust) -> Result<Terms, BadHeader> {
        let _ = (request, trust);
        Ok(Terms::default())
    }

    /// The answer to a request that was rejected.
    ///
    /// # Errors
    ///
    /// If rejections are errors here.
    fn reject(&self, hint: Self::Hint, rejection: Rejection) -> Result<Self::Response, Self::Error>;

    /// A response of the service itself, in the type of the whole.
    fn pass(&self, response: Res) -> Self::Response;

    /// An error of the service itself, in the type of the whole.
    fn fail(&self, error: Err) -> Self::Error;

    /// Whether the service's answer counts as an error in the pool's numbers: by default, if it is one.
    fn failed(result: &Result<Res, Err>) -> bool {
        result.is_err()
    }

    /// How the request is called in the task log: by default, by its type.
    fn describe(&self, request: &Req) -> String {
        let _ = request;
        crate::pool::name_of::<Req>()
    }
}
