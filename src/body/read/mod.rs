//! Reads the bodies of requests before their requests are handled.
//!
//! `settings` has what an application sets. `reading` is the future that reads a body, by the rules of `pace`, into
//! `chunks`. `buffered` is the body that the handler gets, and `request` its request. `streamed` is for bodies that
//! are not read first.

mod buffered;
mod chunks;
mod error;
mod pace;
mod reading;
mod request;
mod settings;
mod streamed;

pub use self::buffered::Buffered;
pub use self::error::ReadError;
pub use self::request::ReadRequest;
pub(crate) use self::request::RequestReading;
pub use self::settings::ReadBody;
pub use self::streamed::{StreamBody, Streamed};
