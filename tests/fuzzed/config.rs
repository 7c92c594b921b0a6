//! The properties of the configuration parser that hold for any text.

use tower_offload::pools::BuildError;
use tower_offload::{Config, Pools};

/// Valid settings make pools, and are the same after they were written and read. The error of others names their places.
pub(crate) fn check(text: &str) {
    match Config::from_yaml(text) {
        Ok(config) => accepted(&config),
        Err(error) => {
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            for error in std::iter::once(&error).chain(error.others()) {
                assert!(error.line().is_none_or(|line| (1..=lines + 1).contains(&line)), "{error}");
                // The parser reports this if it gives up; the checks before it must refuse such text.
                let gave_up = error.message().contains("too large") && !text.contains("too large");
                assert!(!error.message().is_empty() && !gave_up, "{error}");
            }
        }
    }
}

fn accepted(config: &Config) {
    let written = config.to_yaml().expect("what was read is valid");
    let again = Config::from_yaml(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
    assert_eq!(again, *config, "{written}");
    let _ = config.app::<serde_json::Value>();
    // The system may refuse a `nice` value. No other error is expected.
    assert!(matches!(Pools::new(config), Ok(_) | Err(BuildError::Nice { .. })), "{written}");
}
