//! The trait that describes the requests of a layer.

use std::time::Duration;

use crate::config::Trust;
use crate::headers::BadHeader;
use crate::terms::Terms;

/// Reads the terms of a request, decides which results count as errors, and names requests in the log.
///
/// [`Http`](super::Http) is the default. Implement it for requests of another type that carry deadlines or priorities,
/// and pass it to [`PoolLayer::protocol`](crate::PoolLayer::protocol):
///
/// ```
/// use tower_offload::config::Trust;
/// use tower_offload::reject::{BadHeader, Protocol, Terms};
/// use tower_offload::{Cpu, Deadline, PoolLayer, Pools};
///
/// struct Call { method: &'static str, deadline: Deadline }
///
/// #[derive(Clone, Debug)]
/// struct Rpc;
///
/// impl<Res, Err> Protocol<Call, Res, Err> for Rpc {
///     fn terms(&self, call: &mut Call, _trust: &Trust) -> Result<Terms, BadHeader> {
///         let mut terms = Terms::default();
///         terms.deadline = Some(call.deadline);
///         Ok(terms)
///     }
///
///     fn describe(&self, call: &Call) -> String {
///         call.method.to_owned()
///     }
/// }
///
/// let layer = PoolLayer::<Cpu>::new(&Pools::default()).errors().protocol(Rpc);
/// # let _ = layer;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not know requests of type `{Req}` with responses of type `{Res}`",
    note = "for a service that does not speak HTTP, write `PoolLayer::<Cpu>::new(&pools).any_request()`"
)]
pub trait Protocol<Req, Res, Err>: Clone + Send + Sync + 'static {
    /// The terms of the request. `trust` names the headers that the pool trusts. By default a request has no terms.
    ///
    /// # Errors
    ///
    /// If a trusted header cannot be read, and the pool rejects such requests.
    fn terms(&self, request: &mut Req, trust: &Trust) -> Result<Terms, BadHeader> {
        let _ = (request, trust);
        Ok(Terms::default())
    }

    /// Whether the result of the inner service counts as `error` in the metrics. By default `Err` does.
    fn failed(&self, result: &Result<Res, Err>) -> bool {
        result.is_err()
    }

    /// The name of the request in the task log. By default its type.
    fn describe(&self, request: &Req) -> String {
        let _ = request;
        crate::function_name::short_type_name::<Req>()
    }

    /// Adds to the response how long its request was queued and how long it ran. Called if the layer has
    /// [`PoolLayer::server_timing`](crate::PoolLayer::server_timing). By default it adds nothing.
    fn timed(&self, response: &mut Res, queued: Duration, ran: Duration) {
        let _ = (response, queued, ran);
    }

    /// Whether the client expects the body of the response. By default it does. With [`Http`](super::Http) it does not after
    /// a `HEAD`: the server drops the body then, and its task has not been cancelled.
    fn expects_body(&self, request: &Req) -> bool {
        let _ = request;
        true
    }

    /// Whether the request always runs inline, as a health check should. By default no request does.
    fn runs_inline(&self, request: &Req) -> bool {
        let _ = request;
        false
    }
}

/// The protocol of requests that the layer knows nothing about; chosen by
/// [`PoolLayer::any_request`](crate::PoolLayer::any_request).
///
/// Requests have no deadline, the normal priority, and the name of their type. Every response counts as `ok`, and every
/// error as `error`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyRequest;

impl<Req, Res, Err> Protocol<Req, Res, Err> for AnyRequest {}
