//! The YAML form of the settings: reading, with the place of every mistake, and writing.
//!
//! Reading a file takes four steps. [`source`] reads the text, up to a limit. [`tree`] parses the text into numbered
//! nodes. [`read`] visits the nodes, fills a [`Config`](super::Config) and collects every mistake instead of stopping
//! at the first; [`hints`] guesses what was meant. Finally, if there are mistakes, their lines are looked up.

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
