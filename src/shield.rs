//! Runs what belongs to the application where a panic of it must not harm the pool.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls something of the application's, such as a destructor, a recorder or a subscriber; a panic of it is reported by the
/// panic hook and ends here. A subscriber panics more easily than one thinks: when nobody reads what it writes any more.
pub(crate) fn shielded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(drop_payload).ok()
}

/// Drops the value of a panic. It may itself panic when it is dropped; the value of that second panic is left alone.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    let second = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    std::mem::forget(second);
}
