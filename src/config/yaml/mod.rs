//! The YAML form of the settings: reading with the place of every mistake, and writing.
//!
//! A file goes through four steps. [`source`] reads it, bounded, as text. [`tree`] parses the text into nodes that know
//! their places. [`read`] walks the nodes, fills a [`Config`](super::Config) and notes every mistake instead of
//! stopping at the first; [`hints`] says what was probably meant. At the end, and only if there are mistakes, their
//! lines are looked up.

mod app;
mod hints;
mod load;
mod pool;
mod read;
mod source;
mod tree;
mod values;
mod write;

pub(super) use self::app::App;
