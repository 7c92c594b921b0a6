//! The open connections: how many there are, and a way to tell all of them to finish or to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::activity::Activity;
use crate::body::StallSignal;
use crate::sync::lock_std as lock;

/// The server's order to all of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Serve.
    Serve,
    /// Serve, and announce in each HTTP/1 response that its connection closes.
    Announce,
    /// Finish what is in flight, then close.
    Finish,
    /// Close at once.
    End,
}

/// The open connections. Dropping it ends them.
#[derive(Debug, Default)]
pub(super) struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    order: AtomicU8,
    /// By their addresses in memory.
    open: Mutex<HashMap<usize, Arc<Connection>>>,
    /// Notified when the last connection closes.
    none_open: Notify,
}

/// One open connection, shared by its socket, its requests and the task that serves it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) activity: Activity,
    shared: Arc<Shared>,
    upgraded: AtomicBool,
    /// That of the response in flight over HTTP/1.
    stall: Mutex<Option<StallSignal>>,
    /// Some response had such a signal.
    measured: AtomicBool,
    /// The client takes nothing.
    stuck: AtomicBool,
    /// The end of the server's stream is the end of the body in flight: the response is of HTTP/1.0, and has no length.
    delimits: AtomicBool,
    /// A request was answered, and hyper has to look at its body before it gets the response.
    answered: AtomicBool,
    /// One for each [`Side`].
    wakers: [AtomicWaker; 3],
}

/// Keeps a connection among the open ones. The socket owns it, so that an upgraded connection counts until it closes.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) connection: Arc<Connection>,
}

/// The wakers that an order wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The task that serves the connection.
    Task,
    /// The reader of an upgraded connection.
    Read,
    /// The writer to an upgraded connection.
    Write,
}

// === impl Connections ===

impl Connections {
    /// Counts a new connection.
    pub(super) fn open(&self) -> Registration {
        let connection = Arc::new(Connection {
            activity: Activity::new(),
            shared: Arc::clone(&self.shared),
            upgraded: AtomicBool::new(false),
            stall: Mutex::new(None),
            measured: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            delimits: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            wakers: Default::default(),
        });
        lock(&self.shared.open).insert(address(&connection), Arc::clone(&connection));
        Registration { connection }
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// The requests in flight on all connections.
    pub(super) fn requests(&self) -> usize {
        lock(&self.shared.open).values().map(|connection| connection.activity.in_flight()).sum()
    }

    pub(super) fn give(&self, order: Order) {
        self.shared.order.store(order as u8, Ordering::SeqCst);
        let connections: Vec<_> = lock(&self.shared.open).values().cloned().collect();
        for connection in connections {
            connection.wake();
        }
    }

    /// Waits until no connection is open.
    pub(super) async fn none_open(&self) {
        loop {
            let none_open = self.shared.none_open.notified();
            if self.count() == 0 {
                return;
            }
            none_open.await;
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.give(Order::End);
    }
}

// === impl Connection ===

impl Connection {
    pub(super) fn order(&self) -> Order {
        match self.shared.order.load(Ordering::SeqCst) {
            0 => Order::Serve,
            1 => Order::Announce,
            2 => Order::Finish,
            _ => Order::End,
        }
    }

    /// From now on the socket belongs to another protocol.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    /// A response is in flight, and `signal` says whether its client has stopped to read.
    pub(super) fn watch_stall(&self, signal: Option<StallSignal>) {
        if signal.is_some() {
            self.measured.store(true, Ordering::Relaxed);
        }
        self.activity.set_patience(signal.as_ref().map(StallSignal::timeout));
        *lock(&self.stall) = signal;
    }

    /// hyper has taken all of the response, or dropped it. A client that had stopped to read before stays so.
    pub(super) fn unwatch_stall(&self) {
        lock(&self.stall).take_if(|signal| !signal.is_set());
    }

    /// Whether bodies of this connection measure how fast their client reads.
    pub(super) fn is_measured(&self) -> bool {
        self.measured.load(Ordering::Relaxed)
    }

    /// Completes when the client has stopped to read.
    pub(super) fn poll_stalled(&self, cx: &Context<'_>) -> Poll<()> {
        lock(&self.stall).as_ref().map_or(Poll::Pending, |signal| signal.poll_set(cx))
    }

    /// Has hyper polled once more, at once.
    pub(super) fn poll_again(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether hyper shall be polled once more. The answer is true once for each [`poll_again`](Self::poll_again).
    pub(super) fn take_poll_again(&self) -> bool {
        self.answered.load(Ordering::Relaxed) && self.answered.swap(false, Ordering::Relaxed)
    }

    /// The client has stopped to read, whatever its responses say.
    pub(super) fn set_stuck(&self) {
        self.stuck.store(true, Ordering::Relaxed);
        if let Some(signal) = &*lock(&self.stall) {
            signal.set();
        }
    }

    /// Says whether the end of the server's stream is the end of the body in flight.
    pub(super) fn set_delimits_body(&self, delimits: bool) {
        self.delimits.store(delimits, Ordering::Relaxed);
    }

    /// Whether the end of the server's stream is the end of the body in flight.
    pub(super) fn delimits_body(&self) -> bool {
        self.delimits.load(Ordering::Relaxed)
    }

    /// Whether the client has stopped to read.
    pub(super) fn is_stalled(&self) -> bool {
        self.stuck.load(Ordering::Relaxed) || lock(&self.stall).as_ref().is_some_and(StallSignal::is_set)
    }

    /// Has `waker` woken at the next order. Ask for the order after this, not before.
    pub(super) fn watch(&self, side: Side, waker: &Waker) {
        self.wakers[side as usize].register(waker);
    }

    fn wake(&self) {
        self.wakers.iter().for_each(AtomicWaker::wake);
    }
}

// === impl Registration ===

impl Drop for Registration {
    fn drop(&mut self) {
        let shared = &self.connection.shared;
        let mut open = lock(&shared.open);
        open.remove(&address(&self.connection));
        if open.is_empty() {
            shared.none_open.notify_waiters();
        }
    }
}

fn address(connection: &Arc<Connection>) -> usize {
    Arc::as_ptr(connection).addr()
}
