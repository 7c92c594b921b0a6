//! How much of a body remains.

use bytes::Buf;
use http_body::{Frame, SizeHint};

/// The size of a body, less the data that was taken of it.
#[derive(Debug)]
pub(super) struct Remaining {
    lower: u64,
    upper: Option<u64>,
}

impl Remaining {
    pub(super) fn new(size: SizeHint) -> Self {
        Self { lower: size.lower(), upper: size.upper() }
    }

    pub(super) fn take<D: Buf>(&mut self, frame: &Frame<D>) {
        let taken = frame.data_ref().map_or(0, Buf::remaining) as u64;
        self.lower = self.lower.saturating_sub(taken);
        self.upper = self.upper.map(|upper| upper.saturating_sub(taken));
    }

    pub(super) fn hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        if let Some(upper) = self.upper {
            hint.set_upper(upper);
        }
        hint.set_lower(self.lower);
        hint
    }
}
