//! What holds for every text that is read as a configuration.

use tower_offload::pools::BuildError;
use tower_offload::{Config, Pools};

/// What is accepted makes pools, and is read as it was when it has been written. What is refused has its places.
pub(crate) fn check(text: &str) {
    match Config::from_yaml(text) {
        Ok(config) => accepted(&config),
        Err(error) => {
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            for error in std::iter::once(&error).chain(error.others()) {
                assert!(error.line().is_none_or(|line| (1..=lines + 1).contains(&line)), "{error}");
                // The parser says that of text where it gives up, and is not to come so far.
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
    // The system may not allow a `nice`, and nothing else is in the way.
    assert!(matches!(Pools::new(config), Ok(_) | Err(BuildError::Nice { .. })), "{written}");
}
