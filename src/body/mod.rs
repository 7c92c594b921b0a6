//! Bodies of requests and responses.
//!
//! | type | for |
//! |---|---|
//! | [`ReadBody`] | reads the bodies of requests before they are handled: limited in size, time and rate |
//! | [`StreamBody`] | bounds how long a handler waits for a body that must stream |
//! | [`Budget`] | the memory of all bodies that are read |
//! | [`BodyPolicy`], [`OnDrain`] | where the bodies of responses are polled, whether they hold the permit, how they end |
//! | [`ResponseBody`], [`ResponseContext`] | the body of a response behind a layer, and how an [`OnReject`](crate::reject::OnReject) makes one |
//!
//! [Request bodies](crate::docs::bodies) and [response bodies](crate::docs::response_bodies) have a page each.

// A file imports only from files that stand before it in this table:
//
// | file | contents |
// |---|---|
// | `full`, `mark`, `error`, `grpc` | a complete body; the mark of a body that was read; errors; messages of gRPC |
// | `pause` | pauses of the process, after which a timeout begins anew |
// | `read` | request bodies that are read before their requests are handled |
// | `frames`, `next`, `remaining`, `farewell` | a queue of frames; the next frame of a body, or its end; what remains of it; its end at a drain |
// | `watch` | the watch for a reader that stalls |
// | `buffer`, `reader`, `pump` | frames that wait for the client; the connection's side; the worker's side |
// | `connection`, `response`, `context` | a body that the connection polls; all of these; the choice between them |

mod buffer;
mod connection;
mod context;
mod error;
mod farewell;
mod frames;
mod full;
mod grpc;
mod mark;
#[cfg(all(test, tower_offload_loom))]
mod models;
mod next;
mod pause;
mod pump;
mod read;
mod reader;
mod remaining;
mod response;
mod watch;

pub use self::context::ResponseContext;
pub use self::error::BodyError;
pub use self::full::FullBody;
pub use self::mark::BodyRead;
pub use self::read::{Buffered, ReadBody, ReadError, ReadRequest, StreamBody, Streamed};
pub use self::response::ResponseBody;
pub use crate::budget::Budget;
pub use crate::config::{BodyPolicy, OnDrain, RunBody};

pub(crate) use self::buffer::Buffer;
pub(crate) use self::error::BoxError;
pub(crate) use self::grpc::is_grpc;
#[cfg(feature = "server")]
pub(crate) use self::pause::{PAUSE, was_paused};
pub(crate) use self::pump::Producer;
pub(crate) use self::read::RequestReading;
pub(crate) use self::reader::Reader;
#[cfg(feature = "server")]
pub(crate) use crate::stall::StallSignal;
