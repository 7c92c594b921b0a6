//! What the streaming routes of the benchmark send, as a body and as blocking code.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::Interval;

use crate::ways::Task;

/// The frames of a stream.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// Frames of 64 KiB without end, each ready at once.
    Large,
    /// 64 MiB of text in frames of 64 KiB.
    Text,
    /// 50 small frames a second.
    Ticks,
    /// One small frame, and nothing after it.
    Idle,
    /// Frames of 1 KiB without end, each ready at once.
    Ready,
    /// Small frames without end, each of which takes this work.
    Computed(Task),
}

/// The time between two small frames.
pub const PERIOD: Duration = Duration::from_millis(20);

const LARGE: usize = 64 * 1024;
const EVENT: &[u8] = b"data: a token\n\n";

impl Source {
    fn frame(self) -> Bytes {
        match self {
            Self::Large | Self::Text => {
                let line = |number: usize| format!("{number},{},{}\n", number * 7919 % 10_007, number * 104_729 % 1009);
                let text: String = (0..LARGE / 8).map(line).collect();
                Bytes::from(text).slice(..LARGE)
            }
            Self::Ready => Bytes::from(vec![b'x'; 1024]),
            Self::Ticks | Self::Idle | Self::Computed(_) => Bytes::from_static(EVENT),
        }
    }

    /// How many frames are ready at once.
    const fn count(self) -> usize {
        match self {
            Self::Large | Self::Ready | Self::Computed(_) => usize::MAX,
            Self::Text => 1024,
            Self::Ticks => 0,
            Self::Idle => 1,
        }
    }

    /// As a body that its connection or a pool polls.
    pub fn body(self) -> Frames {
        let interval = matches!(self, Self::Ticks).then(|| tokio::time::interval(PERIOD));
        Frames { source: self, frame: self.frame(), left: self.count(), interval }
    }

    fn compute(self) {
        if let Self::Computed(task) = self {
            task.run();
        }
    }

    /// As blocking code that sends the frames until sending fails.
    pub fn write(self, mut send: impl FnMut(&Bytes) -> io::Result<()>) -> io::Result<()> {
        let frame = self.frame();
        for _ in 0..self.count() {
            self.compute();
            send(&frame)?;
        }
        if !matches!(self, Self::Ticks) {
            return Ok(());
        }
        let mut due = Instant::now();
        loop {
            send(&frame)?;
            due += PERIOD;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// A body of equal frames.
#[derive(Debug)]
pub struct Frames {
    source: Source,
    frame: Bytes,
    left: usize,
    interval: Option<Interval>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(interval) = &mut self.interval {
            ready!(interval.poll_tick(cx));
        } else if self.left > 0 {
            self.left -= 1;
            self.source.compute();
        } else if matches!(self.source, Source::Text) {
            return Poll::Ready(None);
        } else {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }
}

/// A bounded channel as a body, as one would write it without this crate.
#[derive(Debug)]
pub struct Channel(pub mpsc::Receiver<Bytes>);

impl Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
