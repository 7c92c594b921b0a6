//! The settings: plain data, the rules for each value, and the YAML form.
//!
//! [`Config::load`] reads a file (feature `config`); [`Config::default`] and its methods make the same settings in
//! code.

mod batch;
mod body;
mod byte_size;
mod duration;
mod error;
mod nearest;
mod overload;
mod pool;
mod route;
mod rules;
mod scale;
mod settings;
mod trust;
#[cfg(feature = "config")]
mod yaml;

pub use self::batch::BatchSettings;
pub use self::body::{BodyPolicy, OnDrain, RunBody};
pub use self::error::ConfigError;
pub use self::overload::{Concurrency, Queue, QueueTarget};
pub use self::pool::{Cores, PoolConfig, ThreadPools, Workers};
pub use self::route::Route;
pub use self::settings::{Config, General, Performance, ServerConfig};
pub use self::trust::{Malformed, Trust};

pub(crate) use self::duration::time_left;
