//! Slots under loom: `models` runs the lock and the loader of a swap through the interleavings of a few threads.

mod models;
