//! A socket that reports its reads and writes to its connection, and fails once the connection has to end.

use std::any::Any;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::activity::Protocol;
use super::connections::{Connection, Order, Registration, Side};

/// The first bytes of every HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The stream of a connection, which reports to it.
#[derive(Debug)]
pub(super) struct Socket<Io> {
    io: Io,
    /// The rest of the preface, until the client has sent all of it or something else.
    preface: Option<&'static [u8]>,
    ended: bool,
    // Dropped after the stream, so a connection that is no longer counted is closed.
    registration: Registration,
}

impl<Io: 'static> Socket<Io> {
    pub(super) fn new(io: Io, registration: Registration) -> Self {
        Self { io, preface: Some(HTTP2_PREFACE), ended: false, registration }
    }

    fn connection(&self) -> &Connection {
        &self.registration.connection
    }

    fn notice(&mut self, bytes: &[u8]) {
        if let Some(rest) = self.preface {
            let common = rest.len().min(bytes.len());
            if rest[..common] != bytes[..common] {
                self.preface = None;
                self.connection().activity.set_protocol(Protocol::Http1);
            } else if common == rest.len() {
                self.preface = None;
                self.connection().activity.set_protocol(Protocol::Http2);
            } else {
                self.preface = Some(&rest[common..]);
            }
        }
        self.connection().activity.read();
    }

    /// An upgraded socket is polled by the application alone, so the order to end has to reach it here.
    fn check_order(&self, side: Side, cx: &Context<'_>) -> io::Result<()> {
        if self.connection().is_upgraded() {
            self.connection().watch(side, cx.waker());
            if self.connection().order() == Order::End {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has shut down"));
            }
        }
        Ok(())
    }
}

/// Asks the kernel for unread bytes, which the runtime may not have noticed yet. It does so for a plain TCP or Unix
/// stream only: behind TLS, a byte on the socket need not be a byte of a request.
fn has_unread(io: &dyn Any) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let tcp = io.downcast_ref().map(|io: &TcpStream| SockRef::from(io));
    #[cfg(unix)]
    let tcp = tcp.or_else(|| io.downcast_ref().map(|io: &UnixStream| SockRef::from(io)));
    tcp.is_some_and(|socket| matches!(socket.peek(&mut byte), Ok(1)))
}

impl<Io: AsyncRead + Unpin + 'static> AsyncRead for Socket<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_order(Side::Read, cx)?;
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                self.notice(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if self.connection().activity.take_probe() && has_unread(&self.io) {
                    self.connection().activity.read();
                }
                Poll::Pending
            }
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin + 'static> AsyncWrite for Socket<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_order(Side::Write, cx)?;
        let poll = Pin::new(&mut self.io).poll_write(cx, buf);
        self.connection().activity.write_blocked(poll.is_pending());
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_order(Side::Write, cx)?;
        let poll = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.connection().activity.write_blocked(poll.is_pending());
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.ended = true;
            // Once: hyper calls this again whenever the task is woken.
            self.connection().activity.ended();
        }
        if self.connection().is_upgraded() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [MaybeUninit::uninit(); 1024];
        loop {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.connection().activity.discarded(),
                Poll::Pending if self.connection().activity.lingers() => return Poll::Pending,
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
