//! The trait that makes the response to a rejected request.

use crate::body::ResponseContext;
use crate::error::Rejection;

/// Turns a [`Rejection`] into a response or an error.
///
/// The [module's documentation](super) has an example.
pub trait OnReject<Req, Res, Err>: Clone + Send + Sync + 'static {
    /// The part of a request that the response needs. The request itself is no longer available when it is rejected.
    type Hint: Send + 'static;
    /// The response type of the service that the layer makes.
    type Response;
    /// The error type of the service that the layer makes.
    type Error;

    /// Takes the hint from a request. Called for each request that a pool is chosen for.
    fn hint(&self, request: &Req) -> Self::Hint;

    /// The response to a rejected request.
    ///
    /// # Errors
    ///
    /// If rejections are errors for this service.
    fn reject(&self, hint: Self::Hint, rejection: Rejection) -> Result<Self::Response, Self::Error>;

    /// Converts a response of the inner service. A worker calls this when the handler has ended.
    ///
    /// [`ResponseContext::wrap`] treats the body by the policy of the pool and the layer. A response that is returned
    /// as it is has its body polled on the connection, and holds no permit.
    fn pass(&self, response: Res, context: &ResponseContext) -> Self::Response;

    /// Converts an error of the inner service.
    fn fail(&self, error: Err) -> Self::Error;
}
