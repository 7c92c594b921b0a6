//! The text of a configuration, with its name for errors.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use crate::config::error::{ConfigError, Position};

/// The longest accepted configuration, in bytes: far more than any needs.
const LONGEST: u64 = 1024 * 1024;

/// The most brackets and braces. The parser's time grows with the square of the nesting depth, and the depth is not
/// known before it has finished.
const MOST_BRACKETS: usize = 10_000;

/// A text and its name.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    pub(super) text: Arc<str>,
}

impl Source {
    /// Wraps a text that was not read from a file.
    pub(super) fn new(name: &str, text: &str) -> Result<Self, ConfigError> {
        let source = Self { name: name.into(), text: text.into() };
        source.check().map_err(|error| error.in_file(&source.name))?;
        Ok(source)
    }

    /// Reads a file; `None` if it does not exist.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let name: Arc<str> = path.display().to_string().into();
        let mut bytes = Vec::new();
        // A directory can be opened; reading it fails.
        let result = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
        match result {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = match error.kind() {
                    ErrorKind::IsADirectory => "this is a directory; name the file in it".to_owned(),
                    ErrorKind::PermissionDenied => "the file may not be read; change its permissions".to_owned(),
                    _ => format!("the file cannot be read: {error}"),
                };
                return Err(ConfigError::new(message).caused_by(error).in_file(&name));
            }
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
                let byte = error.as_bytes().get(valid).copied().unwrap_or_default();
                let message = format!("the byte 0x{byte:02x} is not UTF-8; save the file as UTF-8");
                let error = ConfigError::new(message).at(Some(end_of(&before))).caused_by(error.utf8_error());
                return Err(error.in_file(&name));
            }
        };
        let source = Self { name, text: text.into() };
        source.check().map_err(|error| error.in_file(&source.name))?;
        Ok(Some(source))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.text.len() as u64 > LONGEST {
            return Err(ConfigError::new("this is larger than 1 MiB, which no configuration needs to be"));
        }
        if self.text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > MOST_BRACKETS {
            return Err(ConfigError::new("this has more than 10000 brackets, which no configuration needs"));
        }
        // The parser would reject these characters as well, but without a line.
        let body = self.text.strip_prefix('\u{feff}').unwrap_or(&self.text);
        let Some((index, character)) = body.char_indices().find(|(_, character)| !is_printable(*character)) else {
            return Ok(());
        };
        let message = format!(
            "the character U+{:04X} may not stand in YAML; leave it out, or write it as an escape in double quotes",
            u32::from(character)
        );
        Err(ConfigError::new(message).at(Some(end_of(&body[..index]))))
    }
}

/// The characters `c-printable` of YAML 1.2, without the byte order mark.
fn is_printable(character: char) -> bool {
    matches!(character,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}'
        | '\u{10000}'..='\u{10ffff}')
        && character != '\u{feff}'
}

/// The place just after `text`.
fn end_of(text: &str) -> Position {
    let last = text.rsplit('\n').next().unwrap_or_default();
    Position { line: text.matches('\n').count() + 1, column: last.chars().count() + 1 }
}
