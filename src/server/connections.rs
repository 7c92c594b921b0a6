//! The open connections: how many there are, and a way to tell all of them to finish or to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::activity::Activity;

/// What all connections are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Serve.
    Serve,
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
    open: Mutex<Open>,
    /// Notified when the last connection closes.
    none_open: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
}

/// One open connection, shared by its socket, its requests and the task that serves it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) activity: Activity,
    shared: Arc<Shared>,
    upgraded: AtomicBool,
    wakers: Wakers,
}

#[derive(Debug, Default)]
struct Wakers {
    task: AtomicWaker,
    read: AtomicWaker,
    write: AtomicWaker,
}

/// Keeps a connection among the open ones. The socket owns it, so that an upgraded connection counts until it closes.
#[derive(Debug)]
pub(super) struct Registration {
    id: u64,
    shared: Arc<Shared>,
}

/// Who is to be woken when the order changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The task that serves the connection.
    Task,
    /// Whoever reads from an upgraded connection.
    Read,
    /// Whoever writes to an upgraded connection.
    Write,
}

// === impl Connections ===

impl Connections {
    /// Counts a new connection.
    pub(super) fn open(&self) -> (Arc<Connection>, Registration) {
        let connection = Arc::new(Connection {
            activity: Activity::new(),
            shared: Arc::clone(&self.shared),
            upgraded: AtomicBool::new(false),
            wakers: Wakers::default(),
        });
        let mut open = lock(&self.shared.open);
        let id = open.next;
        open.next += 1;
        open.connections.insert(id, Arc::clone(&connection));
        (connection, Registration { id, shared: Arc::clone(&self.shared) })
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.shared.open).connections.len()
    }

    /// The requests in flight on all connections.
    pub(super) fn requests(&self) -> usize {
        lock(&self.shared.open).connections.values().map(|connection| connection.activity.in_flight()).sum()
    }

    pub(super) fn give(&self, order: Order) {
        self.shared.order.store(order as u8, Ordering::SeqCst);
        let connections: Vec<_> = lock(&self.shared.open).connections.values().cloned().collect();
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
            1 => Order::Finish,
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

    /// Has `waker` woken at the next order. Ask for the order after this, not before.
    pub(super) fn watch(&self, side: Side, waker: &Waker) {
        let Wakers { task, read, write } = &self.wakers;
        match side {
            Side::Task => task,
            Side::Read => read,
            Side::Write => write,
        }
        .register(waker);
    }

    fn wake(&self) {
        let Wakers { task, read, write } = &self.wakers;
        [task, read, write].into_iter().for_each(AtomicWaker::wake);
    }
}

// === impl Registration ===

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = lock(&self.shared.open);
        let closed = open.connections.remove(&self.id);
        let none_open = open.connections.is_empty();
        drop(open);
        // The wakers that it holds are the application's.
        drop(closed);
        if none_open {
            self.shared.none_open.notify_waiters();
        }
    }
}

/// The data behind these locks is whole at every moment, so a panic elsewhere is no reason to give up.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
