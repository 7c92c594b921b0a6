//! Bodies of requests and responses.

mod full;
mod mark;
mod stall;

pub use self::full::FullBody;
pub use self::mark::BodyRead;
#[cfg_attr(not(feature = "server"), expect(unused_imports, reason = "only the server drops connections"))]
pub(crate) use self::stall::StallSignal;
