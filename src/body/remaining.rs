//! How much of a body remains.

use bytes::Buf;
use http_body::{Frame, SizeHint};

/// The size of a body, less the data that was taken of it.
#[derive(Debug)]
pub(super) struct Remaining {
    lower: u64,
    upper: Option<u64>,
    /// The rest of the length in the response's head.
    announced: Option<u64>,
}

impl Remaining {
    /// `announced` is the length that the client learns: that of the header, or else that of the body.
    pub(super) fn new(size: &SizeHint, announced: Option<u64>) -> Self {
        Self { lower: size.lower(), upper: size.upper(), announced }
    }

    /// Whether the client has all the data that was announced. A server drops such a body, and does not ask for its end.
    pub(super) fn is_complete(&self) -> bool {
        self.announced == Some(0)
    }

    pub(super) fn take<D: Buf>(&mut self, frame: &Frame<D>) {
        let taken = frame.data_ref().map_or(0, Buf::remaining) as u64;
        self.lower = self.lower.saturating_sub(taken);
        self.upper = self.upper.map(|upper| upper.saturating_sub(taken));
        self.announced = self.announced.map(|announced| announced.saturating_sub(taken));
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
