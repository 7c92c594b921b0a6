//! The open streams of a pool, counted.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many streams of a pool are open, and the bytes that wait for their readers.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: AtomicUsize,
    buffered: AtomicUsize,
}

impl Streams {
    /// The responses whose body is open after its head.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The bytes of their frames that wait for the reader.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }

    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn added(&self, bytes: usize) {
        self.buffered.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn removed(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes, Ordering::Relaxed);
    }
}
