//! `UnknownPool`: the error of a name that no pool has.

use std::error::Error;
use std::fmt;

use crate::workload::Workload;

/// The error of a name that no pool has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPool {
    name: Workload,
    known: Vec<Workload>,
}

impl UnknownPool {
    pub(crate) const fn new(name: Workload, known: Vec<Workload>) -> Self {
        Self { name, known }
    }

    /// The name that was asked for.
    #[must_use]
    pub const fn name(&self) -> &Workload {
        &self.name
    }

    /// The names of the pools, in the order of the settings.
    #[must_use]
    pub fn known(&self) -> &[Workload] {
        &self.known
    }
}

impl fmt::Display for UnknownPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known.is_empty() {
            return write!(f, "there is no pool `{}`, nor any other", self.name);
        }
        write!(f, "there is no pool `{}`; the pools are ", self.name)?;
        for (index, name) in self.known.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{name}`")?;
        }
        Ok(())
    }
}

impl Error for UnknownPool {}
