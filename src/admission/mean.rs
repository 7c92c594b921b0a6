//! A mean of the latest values.

/// A mean of all values while they are few, then of about the latest `memory`: each weighs `1 / memory`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mean {
    value: f64,
    weight: u32,
    memory: u32,
}

impl Mean {
    pub(super) const fn new(memory: u32) -> Self {
        Self { value: 0.0, weight: 0, memory }
    }

    pub(super) fn add(&mut self, value: f64) {
        self.weight = self.memory.min(self.weight + 1);
        self.value += (value - self.value) / f64::from(self.weight);
    }

    /// Zero before the first value.
    pub(super) const fn value(&self) -> f64 {
        self.value
    }

    /// The mean of at least one value.
    pub(super) fn known(&self) -> Option<f64> {
        (self.weight > 0).then_some(self.value)
    }
}
