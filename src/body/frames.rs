//! A queue of frames. A single frame needs no allocation, because most bodies have one, and most streams one at a time.

use std::collections::VecDeque;

use http_body::Frame;

pub(super) struct Frames<D> {
    first: Option<Frame<D>>,
    /// Empty if there is no first one.
    more: VecDeque<Frame<D>>,
}

impl<D> Frames<D> {
    pub(super) fn push(&mut self, frame: Frame<D>) {
        match self.first {
            Some(_) => self.more.push_back(frame),
            None => self.first = Some(frame),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Frame<D>> {
        std::mem::replace(&mut self.first, self.more.pop_front())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }
}

impl<D> Default for Frames<D> {
    fn default() -> Self {
        Self { first: None, more: VecDeque::new() }
    }
}

impl<D> Iterator for Frames<D> {
    type Item = Frame<D>;

    fn next(&mut self) -> Option<Frame<D>> {
        self.pop()
    }
}
