//! Reads a file or a text as settings.

use std::path::Path;

use tracing::info;

use super::app::App;
use super::read::{self, Mistake};
use super::source::Source;
use super::tree;
use crate::config::error::{ConfigError, Position};
use crate::config::settings::Config;
use crate::shield::shielded;

/// The most mistakes that one error shows.
const MOST_SHOWN: usize = 16;

/// Reading the YAML form. The file `config.yaml` of this crate shows every key.
impl Config {
    /// Reads a file. Settings that it leaves out keep their defaults.
    ///
    /// # Errors
    ///
    /// If the file is missing, cannot be read or is empty; or if a key is unknown or given twice, a value is out of
    /// range, or a route leads to no pool. The error lists every mistake with its file, line, key and value, and how to
    /// correct it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        match Source::read(path)? {
            Some(source) => Self::from_source(&source),
            None => Err(ConfigError::new("there is no such file; create it, or name another")
                .caused_by(std::io::Error::from(std::io::ErrorKind::NotFound))
                .in_file(&path.display().to_string().into())),
        }
    }

    /// Reads a file if it exists. Otherwise it logs that and returns the defaults.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), except that the file may be missing.
    pub fn load_or_default(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        match Source::read(path)? {
            Some(source) => Self::from_source(&source),
            None => {
                shielded(|| info!(target: "tower_offload", "{} not found, using defaults", path.display()));
                Ok(Self::default())
            }
        }
    }

    /// Reads a text. Its errors have `<yaml>` in place of the file's name.
    ///
    /// ```
    /// use tower_offload::Config;
    ///
    /// let error = Config::from_yaml("performance:\n  thread_pools:\n    cpu_workers: 0\n").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "<yaml>:3:18: performance.thread_pools.cpu_workers: 0 workers could never run a task; \
    ///      give a number from 1 to 4096, or `auto`"
    /// );
    /// ```
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Self::from_source(&Source::new("<yaml>", text)?)
    }

    pub(super) fn from_source(source: &Source) -> Result<Self, ConfigError> {
        let root = tree::parse(&source.text).map_err(|error| error.in_file(&source.name))?;
        let (mut config, mistakes) = read::read(&root);
        ConfigError::all(placed(mistakes, &source.text)).map_err(|error| error.in_file(&source.name))?;
        config.app = App::read(read::app(&root), source);
        Ok(config)
    }
}

fn placed(mistakes: Vec<Mistake>, text: &str) -> Vec<ConfigError> {
    let hidden = mistakes.len().saturating_sub(MOST_SHOWN);
    let mut errors: Vec<ConfigError> =
        mistakes.into_iter().take(MOST_SHOWN).map(|mistake| place(mistake, text)).collect();
    if hidden > 0 {
        errors.push(ConfigError::new(format!("{hidden} more mistakes follow")));
    }
    errors
}

fn place(mistake: Mistake, text: &str) -> ConfigError {
    let Mistake { at, key, mut message, other } = mistake;
    if let Some(Position { line, .. }) = other.and_then(|other| tree::locate(text, other)) {
        message.push_str(&format!(" (the other is on line {line})"));
    }
    let error = ConfigError::new(message).at(tree::locate(text, at));
    if key.is_empty() { error } else { error.at_key(key) }
}
