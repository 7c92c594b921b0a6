//! The error of a configuration that is wrong, with the place of each mistake.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The error of a configuration that cannot be used: the place of the mistake, the mistake, and how to correct it.
///
/// [`Display`](fmt::Display) shows it like a compiler's message, without the parts that are unknown:
///
/// ```text
/// config.yaml:12:18: performance.thread_pools.cpu_workers: 0 workers could never run a task; give a number from 1 to 4096, or `auto`
/// ```
///
/// A file with several mistakes gives one error that shows all of them, a line for each. The methods describe the first
/// mistake; [`others`](Self::others) returns the rest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConfigError {
    inner: Box<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    file: Option<Arc<str>>,
    position: Option<Position>,
    key: Option<String>,
    message: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
    others: Vec<ConfigError>,
}

/// A place in a text. Both numbers begin at 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                file: None,
                position: None,
                key: None,
                message: message.into(),
                source: None,
                others: Vec::new(),
            }),
        }
    }

    /// One error for all of `mistakes`; no error if there are none.
    pub(crate) fn all(mut mistakes: Vec<Self>) -> Result<(), Self> {
        if mistakes.is_empty() {
            return Ok(());
        }
        let mut first = mistakes.remove(0);
        first.inner.others = mistakes;
        Err(first)
    }

    pub(crate) fn at_key(mut self, key: impl Into<String>) -> Self {
        self.inner.key = Some(key.into());
        self
    }

    /// The path of the file, or `<yaml>` for a text and `<app>` for a section set in code.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.inner.file.as_deref()
    }

    /// The line in the file, from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.inner.position.map(|position| position.line)
    }

    /// The column in the line, in characters, from 1.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.inner.position.map(|position| position.column)
    }

    /// The full key, such as `performance.thread_pools.cpu.nice`.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.inner.key.as_deref()
    }

    /// The mistake and how to correct it, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The other mistakes of the same configuration.
    #[must_use]
    pub fn others(&self) -> &[Self] {
        &self.inner.others
    }
}

#[cfg(feature = "config")]
impl ConfigError {
    pub(crate) fn at(mut self, position: Option<Position>) -> Self {
        self.inner.position = position;
        self
    }

    /// Names the file, in this mistake and in the others.
    pub(crate) fn in_file(mut self, file: &Arc<str>) -> Self {
        self.inner.file = Some(Arc::clone(file));
        for other in &mut self.inner.others {
            other.inner.file = Some(Arc::clone(file));
        }
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.inner.source = Some(Arc::new(source));
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file(), self.inner.position) {
            (Some(file), Some(Position { line, column })) => write!(f, "{file}:{line}:{column}: ")?,
            (Some(file), None) => write!(f, "{file}: ")?,
            (None, Some(Position { line, column })) => write!(f, "{line}:{column}: ")?,
            (None, None) => {}
        }
        if let Some(key) = self.key() {
            write!(f, "{key}: ")?;
        }
        f.write_str(self.message())?;
        for other in self.others() {
            write!(f, "\n{other}")?;
        }
        Ok(())
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}
