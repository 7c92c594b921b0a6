//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use lexopt::prelude::*;

/// The text of `--help`.
pub(crate) const HELP: &str = "\
An HTTP server whose handlers run in workload pools.

Usage: cargo run --release --example server -- [OPTIONS]

Options:
    --config PATH   the settings [default: config.yaml]
    --bind ADDR     the address to listen on, such as 127.0.0.1:3000; port 0 takes a free one
                    [default: server.host and server.port of the settings]
    --help          show this text

RUST_LOG chooses what is logged, such as `debug` or `tower_offload=debug` [default: info].
";

/// The options of the command line.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) config: Option<PathBuf>,
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) help: bool,
}

impl Options {
    /// Reads the options that follow the program's name.
    pub(crate) fn read(arguments: lexopt::Parser) -> Result<Self, String> {
        Self::parse(arguments).map_err(|error| format!("{error}; --help shows the options"))
    }

    fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("config") => options.config = Some(arguments.value()?.into()),
                Long("bind") => options.bind = Some(address(&arguments.value()?.string()?)?),
                Long("help") | Short('h') => options.help = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let wanted = "give an IP address and a port, such as 127.0.0.1:3000 or [::1]:3000";
    text.parse().map_err(|_| format!("--bind: `{text}` is no address; {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, String> {
        Options::read(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        assert_eq!(read(&[]), Ok(Options::default()));
        let all = read(&["--config", "a.yaml", "--bind=[::1]:0"]).unwrap();
        assert_eq!((all.config, all.bind), (Some("a.yaml".into()), "[::1]:0".parse().ok()));
        assert!(read(&["-h"]).unwrap().help);
        for (arguments, why) in [
            (&["--bnd", "x"][..], "--bnd"),
            (&["--bind"], "--bind"),
            (&["--bind", "localhost"], "`localhost` is no address"),
            (&["--bind", "127.0.0.1:70000"], "127.0.0.1:70000"),
            (&["extra"], "extra"),
        ] {
            let error = read(arguments).unwrap_err();
            assert!(error.contains(why) && error.contains("--help"), "{error}");
        }
    }
}
