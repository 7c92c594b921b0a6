//! Why a server could not serve.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::config::ConfigError;

/// The server could not begin to serve.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The settings are wrong.
    Config(ConfigError),
    /// The address could not be listened on.
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The signals that end the server could not be listened to.
    Signals(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Bind { address, source } => {
                write!(f, "cannot listen on {address}")?;
                match source.kind() {
                    io::ErrorKind::AddrInUse => f.write_str(": another process listens there"),
                    io::ErrorKind::AddrNotAvailable => f.write_str(": no interface of this machine has this address"),
                    io::ErrorKind::PermissionDenied => f.write_str(
                        ": this user may not use this port; ports below 1024 need root or CAP_NET_BIND_SERVICE",
                    ),
                    _ => Ok(()),
                }
            }
            Self::Signals(_) => f.write_str("cannot listen to the signals that end the server"),
        }
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => error.source(),
            Self::Bind { source, .. } | Self::Signals(source) => Some(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_a_sentence_and_debug_shows_the_fields() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let error = ServeError::Bind { address, source: io::Error::new(io::ErrorKind::AddrInUse, "in use") };
        assert_eq!(error.to_string(), "cannot listen on 127.0.0.1:80: another process listens there");
        assert!(format!("{error:?}").starts_with("Bind { address: 127.0.0.1:80"), "{error:?}");
        let error = ServeError::Signals(io::Error::other("none left"));
        assert_eq!(error.to_string(), "cannot listen to the signals that end the server");
    }
}
