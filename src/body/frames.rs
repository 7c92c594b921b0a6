//! A queue of frames. A single frame needs no allocation, because most bodies have one, and most streams one at a time.

use std::collections::VecDeque;

use http_body::Frame;

/// A worker takes at most this many frames of a body in a row. Then it takes the pool's next task. A connection takes at
/// most as many, and then lets its runtime poll other tasks.
pub(super) const FRAMES_IN_A_ROW: usize = 32;

pub(super) struct Frames<D> {
    first: Option<Stored<D>>,
    /// Empty if there is no first one.
    more: VecDeque<Stored<D>>,
}

/// A frame. Trailers are in a box, because they take three times the memory of data and most bodies have none.
enum Stored<D> {
    Data(D),
    Other(Box<Frame<D>>),
}

impl<D> Frames<D> {
    pub(super) fn push(&mut self, frame: Frame<D>) {
        let frame = frame.into_data().map_or_else(|frame| Stored::Other(Box::new(frame)), Stored::Data);
        match self.first {
            Some(_) => self.more.push_back(frame),
            None => self.first = Some(frame),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Frame<D>> {
        std::mem::replace(&mut self.first, self.more.pop_front()).map(|frame| match frame {
            Stored::Data(data) => Frame::data(data),
            Stored::Other(frame) => *frame,
        })
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
