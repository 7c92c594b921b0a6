//! Bodies of requests and responses.

mod full;
mod mark;
mod stall;

pub use self::full::FullBody;
pub use self::mark::BodyRead;
pub use crate::config::{BodyPolicy, OnDrain, RunBody};
#[allow(unused_imports, reason = "not yet")]
pub(crate) use self::stall::StallSignal;
