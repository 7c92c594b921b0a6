//! Calls code of the application whose panic must not harm the pool.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls code of the application, such as a destructor, a metrics recorder or a subscriber. The panic hook reports its
/// panic, which ends here. A subscriber that writes to standard output panics, for example, when nobody reads that any
/// more.
pub(crate) fn shielded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(drop_payload).ok()
}

/// Drops the payload of a panic. If its destructor panics, the payload of that second panic is leaked.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    let second = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    std::mem::forget(second);
}
