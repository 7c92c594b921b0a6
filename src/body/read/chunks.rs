//! The bytes of a body that was read, in few pieces, and the memory that they take.

use std::collections::VecDeque;

use bytes::Bytes;

/// Frames below this size are copied together, except the first. A frame that is kept as it is may share its memory
/// with others, and needs bookkeeping.
const SMALL: usize = 4096;

/// The capacity of a piece into which small frames are copied: at first, and at most.
const LEAST_PIECE: usize = 512;
const LARGEST_PIECE: usize = 64 * 1024;

/// The memory that the bookkeeping of a piece takes: its entry here and its allocation's header.
const PIECE: usize = 64;

/// The bytes of a body, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Not among the others, because most bodies have one piece, which then needs no allocation.
    first: Option<Piece>,
    /// Empty if there is no first one.
    more: VecDeque<Piece>,
    /// The piece into which small frames are copied. It is behind all others.
    last: Vec<u8>,
    /// How many bytes there are.
    length: usize,
    /// How much memory they take.
    cost: usize,
}

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    cost: usize,
}

impl Chunks {
    /// The most memory that a body of this length takes, if [`push`](Self::push) knows how much follows each frame.
    pub(super) const fn most(length: usize) -> usize {
        length.saturating_add(length / 8).saturating_add(8 * PIECE)
    }

    /// How much memory these bytes take.
    pub(super) const fn cost(&self) -> usize {
        self.cost
    }

    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds a frame. `left` is the number of bytes that follow it, if that is known.
    pub(super) fn push(&mut self, bytes: Bytes, left: Option<usize>) {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        if self.length == 0 || length >= SMALL {
            self.seal();
            self.add(bytes, length);
        } else {
            self.append(&bytes, left.unwrap_or(usize::MAX));
        }
        self.length += length;
    }

    /// Copies a small frame into the last piece.
    fn append(&mut self, bytes: &[u8], left: usize) {
        if self.last.len() + bytes.len() > LARGEST_PIECE {
            self.seal();
        }
        let needed = self.last.len() + bytes.len();
        let before = self.last.capacity();
        if needed > before {
            let most = needed.saturating_add(left).min(LARGEST_PIECE);
            let capacity = (2 * before).max(LEAST_PIECE).clamp(needed, most);
            self.last.reserve_exact(capacity - self.last.len());
        }
        self.last.extend_from_slice(bytes);
        self.cost += self.last.capacity() - before;
    }

    /// Ends the last piece.
    pub(super) fn seal(&mut self) {
        let last = std::mem::take(&mut self.last);
        let (length, capacity) = (last.len(), last.capacity());
        self.cost -= capacity;
        match capacity - length {
            _ if length == 0 => {}
            unused if unused <= length / 16 => self.add(last.into(), capacity),
            _ => self.add(Bytes::copy_from_slice(&last), length),
        }
    }

    fn add(&mut self, bytes: Bytes, memory: usize) {
        let cost = memory + PIECE;
        let piece = Piece { bytes, cost };
        match self.first {
            Some(_) => self.more.push_back(piece),
            None => self.first = Some(piece),
        }
        self.cost += cost;
    }

    /// Takes the first piece. The last piece must be sealed.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let Piece { bytes, cost } = std::mem::replace(&mut self.first, self.more.pop_front())?;
        self.length -= bytes.len();
        self.cost -= cost;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(mut chunks: Chunks) -> Vec<Bytes> {
        chunks.seal();
        let pieces = std::iter::from_fn(|| chunks.pop()).collect();
        assert_eq!((chunks.len(), chunks.cost()), (0, 0));
        pieces
    }

    #[test]
    fn the_first_frame_and_large_ones_are_kept_and_small_ones_copied_together() {
        let mut chunks = Chunks::default();
        let (first, large) = (Bytes::from(vec![1; 10]), Bytes::from(vec![2; SMALL]));
        chunks.push(first.clone(), None);
        for _ in 0..100 {
            chunks.push(Bytes::from(vec![3]), None);
        }
        chunks.push(large.clone(), None);
        let pieces = pieces(chunks);
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [10, 100, SMALL]);
        assert_eq!((pieces[0].as_ptr(), pieces[2].as_ptr()), (first.as_ptr(), large.as_ptr()));
    }

    /// Without the copies, a frame of one byte would take 40 times its size, and what it shares its memory with.
    #[test]
    fn a_body_of_single_bytes_takes_about_as_much_memory_as_its_length() {
        const LENGTH: usize = 1 << 20;
        for known in [false, true] {
            let mut chunks = Chunks::default();
            for sent in 1..=LENGTH {
                chunks.push(Bytes::from_static(b"x"), known.then_some(LENGTH - sent));
            }
            assert!(chunks.cost() < LENGTH + LENGTH / 8, "{} bytes of memory", chunks.cost());
            assert!(chunks.more.len() < 20);
        }
    }

    proptest! {
        #[test]
        fn bytes_come_in_their_order_and_the_memory_is_bounded(
            frames in proptest::collection::vec(prop_oneof![0..20_usize, 4000..5000_usize, 60_000..70_000_usize], 0..40),
            known: bool,
        ) {
            let all: Vec<u8> = (0..frames.iter().sum()).map(|n: usize| (n % 251) as u8).collect();
            let (mut chunks, mut at) = (Chunks::default(), 0);
            for length in frames {
                let frame = Bytes::copy_from_slice(&all[at..at + length]);
                at += length;
                chunks.push(frame, known.then_some(all.len() - at));
                prop_assert!(!known || chunks.cost() <= Chunks::most(all.len()), "{} for {}", chunks.cost(), all.len());
                prop_assert_eq!(chunks.len(), at);
            }
            prop_assert_eq!(pieces(chunks).concat(), all);
        }
    }
}
