//! `Panic`: the panic of a task, with its payload.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::shield;

/// A panic of a task, with its payload.
pub struct Panic {
    message: String,
    /// In a mutex because the error is `Sync`, and the payload is not. [`into_payload`](Self::into_payload) takes it.
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = payload
            .downcast_ref::<&'static str>()
            .map(|&message| message.to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic payload that is not a string".to_owned());
        Self { message, payload: Mutex::new(Some(payload)) }
    }

    /// The message of `panic!`. If the payload is not a string, a text that says so.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The payload of the panic, for [`std::panic::resume_unwind`].
    #[must_use]
    pub fn into_payload(mut self) -> Box<dyn Any + Send> {
        self.take().expect("the value is taken once, and this takes `self`")
    }

    /// Continues the panic on this thread. The panic hook is not called again.
    ///
    /// # Panics
    ///
    /// Always.
    pub fn resume(self) -> ! {
        std::panic::resume_unwind(self.into_payload())
    }

    fn take(&mut self) -> Option<Box<dyn Any + Send>> {
        self.payload.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Catches a panic of the payload's destructor.
impl Drop for Panic {
    fn drop(&mut self) {
        if let Some(payload) = self.take() {
            shield::drop_payload(payload);
        }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task panicked: {}", self.message())
    }
}

impl Error for Panic {}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.message()).finish()
    }
}
