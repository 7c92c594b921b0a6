//! A caller's ambient context reaches its tasks, and no others: OpenTelemetry's `Context`, Sentry's hub, and `tracing`'s
//! scoped dispatcher.
//!
//! The properties are the same for all three, and are written once in `properties`. Each module says how to enter a context
//! and how to read it.

mod dispatcher;
mod opentelemetry;
mod properties;
mod sentry;
