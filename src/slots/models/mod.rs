//! Many models by key, under a budget of bytes.

mod builder;
mod catalog;
mod inner;
mod lease;
#[allow(clippy::module_inception, reason = "it has the type that the module is named after")]
mod models;
#[cfg(test)]
mod tests;

pub use self::builder::ModelsBuilder;
pub use self::lease::ModelLease;
pub use self::models::Models;
