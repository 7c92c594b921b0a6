//! The errors of bodies.

use std::error::Error;
use std::fmt;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why the body of a response ended before its end.
///
/// It is the source of the error that the connection finds. A body that ends with it is never taken for complete:
/// HTTP/1.1 closes the connection without the last chunk, and HTTP/2 resets the stream. HTTP/1.0 has no last chunk, so
/// `server::serve` resets the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// The client took nothing for the stall timeout.
    Stalled,
    /// The body panicked, or a shutdown cut it off.
    CutOff,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stalled => "the client took nothing of the body for the stall timeout",
            Self::CutOff => "the body was cut off before its end",
        })
    }
}

impl Error for BodyError {}
