//! A socket that tells its connection what is read and written, and ends when the connection is told to.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::activity::Protocol;
use super::connections::{Connection, Order, Registration, Side};

/// What every HTTP/2 client sends first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A TCP stream that tells its connection what happens on it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// How much of the preface the client has sent, until it is known what it speaks.
    preface: Option<&'static [u8]>,
    ended: bool,
    // Dropped after the stream, so that a connection that is no longer counted is closed.
    _registration: Registration,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>, registration: Registration) -> Self {
        Self { stream, connection, preface: Some(HTTP2_PREFACE), ended: false, _registration: registration }
    }

    fn notice(&mut self, bytes: &[u8]) {
        if let Some(rest) = self.preface {
            let common = rest.len().min(bytes.len());
            if rest[..common] != bytes[..common] {
                self.preface = None;
                self.connection.activity.set_protocol(Protocol::Http1);
            } else if common == rest.len() {
                self.preface = None;
                self.connection.activity.set_protocol(Protocol::Http2);
            } else {
                self.preface = Some(&rest[common..]);
            }
        }
        self.connection.activity.read();
    }

    /// Asks the kernel itself for unread bytes; the runtime may not have heard of them yet.
    fn probe(&self) {
        let mut byte = [MaybeUninit::uninit()];
        if matches!(SockRef::from(&self.stream).peek(&mut byte), Ok(1)) {
            self.connection.activity.read();
        }
    }

    /// An upgraded socket has no task of the server's that could end it, so it ends itself.
    fn check_order(&self, side: Side, cx: &Context<'_>) -> io::Result<()> {
        if self.connection.is_upgraded() {
            self.connection.watch(side, cx.waker());
            if self.connection.order() == Order::End {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has shut down"));
            }
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_order(Side::Read, cx)?;
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                self.notice(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if self.connection.activity.take_probe() {
                    self.probe();
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_order(Side::Write, cx)?;
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.connection.activity.write_blocked(poll.is_pending());
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_order(Side::Write, cx)?;
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.connection.activity.write_blocked(poll.is_pending());
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.ended = true;
            // Once: this is called again each time the task is woken, by the end of the lingering too.
            self.connection.activity.ended();
        }
        if self.connection.is_upgraded() || !self.connection.activity.lingers() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [MaybeUninit::uninit(); 1024];
        loop {
            let mut buf = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
