//! The layer, the service it makes, and the future of a response.

mod call;
mod future;
mod options;
mod pool_layer;
mod service;

pub use self::future::ResponseFuture;
pub use self::pool_layer::PoolLayer;
pub use self::service::PoolService;
