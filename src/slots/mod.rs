//! Values that belong to the permits of a pool: model sessions and connections, one for each task in flight.
mod builder;
mod guard;
mod inner;
mod lender;
mod loader;
mod models;
mod recipe;
mod request;
mod rollout;
#[allow(clippy::module_inception, reason = "it has the type that the module is named after")]
mod slots;
mod stack;
mod swap;
mod take;

pub use self::builder::{BuildError, SlotsBuilder};
pub use self::guard::SlotGuard;
pub use self::models::{ModelLease, Models, ModelsBuilder};
pub use self::request::Swapped;
pub use self::slots::Slots;
pub use crate::error::{MakeError, ModelError, SlotError};
pub use crate::pool::{HoldingStats, LoadedModel, ModelsStats, SlotsStats};
