//! The layer, the service that it makes, and the future of a response.

mod call;
mod future;
mod observe;
mod options;
mod pool_layer;
mod read_body;
mod request_body;
mod run_delay;
mod service;
mod stream_body;
mod trace;

pub use self::future::ResponseFuture;
pub use self::observe::{NameBy, NameRoute, ObserveFuture, ObserveLayer, ObserveService, Routes};
pub use self::pool_layer::PoolLayer;
pub use self::read_body::{ReadBodyFuture, ReadBodyService};
#[doc(hidden)]
pub use self::request_body::NoReading;
pub use self::request_body::{RequestBody, Unread};
pub use self::service::PoolService;
pub use self::stream_body::StreamBodyService;

/// A missing bound is an error at the closure or the implementation that lacks it.
///
/// ```compile_fail,E0277
/// use axum::extract::Request;
/// use tower_offload::{PoolLayer, Pools};
///
/// let not_send = std::rc::Rc::new("cpu");
/// let _layer = PoolLayer::by(&Pools::default(), move |_: &Request| Some(*not_send));
/// ```
///
/// ```compile_fail,E0277
/// use axum::extract::Request;
/// use tower_offload::{Cpu, PoolLayer, Pools, Priority};
///
/// let not_send = std::rc::Rc::new(Priority::Low);
/// let _layer = PoolLayer::<Cpu>::new(&Pools::default()).priority_by(move |_: &Request| Some(*not_send));
/// ```
///
/// ```compile_fail,E0277
/// use axum::extract::Request;
/// use tower_offload::{Cpu, PoolLayer, Pools};
///
/// let not_send = std::rc::Rc::new("tenant");
/// let _layer = PoolLayer::<Cpu>::new(&Pools::default()).fair_by(move |_: &Request| Some(*not_send));
/// ```
///
/// ```compile_fail,E0277
/// use http::{Request, Response};
/// use tower_offload::{Rejection, reject::{OnReject, ResponseContext}};
///
/// #[derive(Clone)]
/// struct NotSend;
///
/// impl<B, E> OnReject<Request<B>, Response<String>, E> for NotSend {
///     type Hint = std::rc::Rc<str>;
///     type Response = Response<String>;
///     type Error = E;
///
///     fn hint(&self, request: &Request<B>) -> std::rc::Rc<str> {
///         request.uri().path().into()
///     }
///
///     fn reject(&self, hint: std::rc::Rc<str>, _rejection: Rejection) -> Result<Response<String>, E> {
///         Ok(Response::new(hint.to_string()))
///     }
///
///     fn pass(&self, response: Response<String>, _context: &ResponseContext) -> Response<String> {
///         response
///     }
///
///     fn fail(&self, error: E) -> E {
///         error
///     }
/// }
/// ```
#[cfg(doctest)]
mod bounds {}
