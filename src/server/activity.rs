//! The activity of one connection, and the rules of its timeouts.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long the peer may take to close the connection after the server's GOAWAY or the end of the server's stream.
pub(super) const CLOSING_GRACE: Duration = Duration::from_secs(5);

/// How long the server reads and discards bytes after it has ended its stream, if they keep coming.
///
/// To close a socket that has unread bytes resets the connection, and a reset destroys responses that the client has
/// not read yet (RFC 9112, section 9.6).
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How long it waits for the next of these bytes.
pub(super) const LINGER_QUIET: Duration = Duration::from_secs(1);

/// How long after its arrival a connection may still bring its first request although the server shuts down.
///
/// The client of a new connection is about to send a request, other clients keep their connections for later. Go's
/// `net/http` makes the same distinction, with 5 s.
pub(super) const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// How often the server pings an HTTP/2 client, and how long it then waits for the answer before it closes the
/// connection. hyper sends no ping while bytes arrive.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(10);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a peer may take nothing of what the server has to write, and send nothing, before it is disconnected. An
/// HTTP/2 client that reads nothing answers no ping either.
pub(super) const WRITE_TIMEOUT: Duration = PING_INTERVAL.saturating_add(PING_TIMEOUT);

/// How often the server looks whether the client has hung up, while a request is in flight and hyper reads nothing.
///
/// hyper reads ahead to see the end of the connection, but not while a body is unread or the next request is there.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);

const NEVER: u64 = u64::MAX;

/// The configured times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) keep_alive: Duration,
    pub(super) header_read: Duration,
    pub(super) write: Duration,
    pub(super) max_age: Option<Duration>,
}

/// How far a connection is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is served.
    Open,
    /// It ends after the requests in flight.
    Draining,
    /// At this moment, hyper began to close it after the requests in flight.
    Closing(Instant),
    /// At this moment, hyper began to close it with no request in flight. HTTP/2 may still bring a request that the
    /// client sent before it received the GOAWAY.
    ClosingIdle(Instant),
}

/// The end of a connection, once a timeout has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Have hyper finish the requests in flight and close the connection.
    Close,
    /// Close the idle connection, unless a request has just arrived.
    CloseIdle,
    /// Close the socket if the client has hung up.
    Look,
    /// Close the socket.
    Drop,
    /// Reset the connection: its peer takes nothing.
    Reset,
}

/// The next action, and when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// No action is due while hyper waits for a request's end and would notice its client's.
    Never,
    Now(Action),
    At(Instant, Action),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Protocol {
    /// Too little was read to tell.
    Unknown,
    Http1,
    Http2,
}

/// The activity of one connection. Its socket and its requests write this, its timer reads it.
///
/// HTTP/2 serves each request in a separate task, hence the atomics. Times are nanoseconds since `opened`.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    protocol: AtomicU8,
    /// Requests whose response hyper has not taken to its last byte. A tunnel over HTTP/2 counts as one until it ends.
    in_flight: AtomicUsize,
    /// When the last request ended, or the peer resumed reading.
    idle_since: AtomicU64,
    /// When a request's header began to arrive; for the first one, when the connection did.
    head_since: AtomicU64,
    /// Whether the last request had a body, of which the client may still send a part.
    has_body: AtomicBool,
    /// When the server's stream ended.
    ended: AtomicU64,
    /// When bytes were last discarded since then.
    discarded: AtomicU64,
    /// The peer does not read fast enough.
    blocked: AtomicBool,
    /// How long the response in flight lets its client take nothing, in nanoseconds, if it says so.
    patience: AtomicU64,
    /// A write succeeded.
    wrote: AtomicBool,
    /// hyper waits for bytes, so it notices the end of the connection.
    reading: AtomicBool,
    /// Since when a request is in flight and hyper is not reading, or when the socket last looked for the peer's end.
    not_reading_since: AtomicU64,
    /// The socket shall look whether the peer has hung up.
    looking: AtomicBool,
    /// The socket shall look for unread bytes.
    probing: AtomicBool,
    /// The server's stream ends because the connection is idle.
    ends_idle: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            protocol: AtomicU8::new(Protocol::Unknown as u8),
            in_flight: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            has_body: AtomicBool::new(false),
            ended: AtomicU64::new(NEVER),
            discarded: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            patience: AtomicU64::new(0),
            wrote: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            not_reading_since: AtomicU64::new(NEVER),
            looking: AtomicBool::new(false),
            probing: AtomicBool::new(false),
            ends_idle: AtomicBool::new(false),
        }
    }

    /// A request's header arrived.
    pub(super) fn request_began(&self, has_body: bool) {
        self.has_body.store(has_body, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// hyper took the response to its last byte, or the request was cancelled.
    pub(super) fn request_ended(&self) {
        // First the time, then the count: a reader that sees no request in flight also sees since when. While a client
        // does not read, hyper may end all of its requests, and the clock keeps running.
        if !self.blocked.load(Ordering::Relaxed) {
            self.restart_idle_clock();
        }
        self.in_flight.fetch_sub(1, Ordering::Release);
    }

    /// The requests in flight. A response that waits for the peer to read counts, although hyper has all of it.
    pub(super) fn in_flight(&self) -> usize {
        let in_flight = self.in_flight.load(Ordering::Acquire);
        if in_flight == 0 && self.blocked.load(Ordering::Relaxed) { 1 } else { in_flight }
    }

    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Ordering::Relaxed);
        if protocol == Protocol::Http2 {
            // HTTP/2 connections have no timeout for headers.
            self.head_since.store(NEVER, Ordering::Relaxed);
            self.restart_idle_clock();
        }
    }

    /// Bytes were read, or are there to be read.
    pub(super) fn read(&self) {
        if self.blocked.load(Ordering::Relaxed) {
            self.restart_idle_clock();
        }
        let new_head = self.is(Protocol::Http1)
            && self.head_since.load(Ordering::Relaxed) == NEVER
            && self.in_flight.load(Ordering::Relaxed) == 0;
        if new_head {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A write had to wait for the peer, or succeeded again.
    pub(super) fn write_blocked(&self, blocked: bool) {
        if !blocked {
            self.wrote.store(true, Ordering::Relaxed);
        }
        if self.blocked.load(Ordering::Relaxed) != blocked {
            self.blocked.store(blocked, Ordering::Relaxed);
            self.restart_idle_clock();
        }
    }

    /// All that hyper had was written, and a flush had to wait for the peer, or succeeded. Streams of TLS hold bytes.
    pub(super) fn flush_blocked(&self, blocked: bool) {
        if blocked || self.blocked.load(Ordering::Relaxed) {
            self.write_blocked(blocked);
        }
    }

    /// Lets the client of the response in flight take nothing for this time, if that is more than others may.
    pub(super) fn set_patience(&self, patience: Option<Duration>) {
        let nanos = patience.map_or(0, |patience| u64::try_from(patience.as_nanos()).unwrap_or(NEVER));
        self.patience.store(nanos, Ordering::Relaxed);
    }

    /// Whether a part of what hyper has to write was written since the last call, and the next part has to wait.
    pub(super) fn take_progress(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) && self.wrote.swap(false, Ordering::Relaxed)
    }

    /// A read had to wait for bytes, so the next ones and the end of the connection wake hyper.
    pub(super) fn read_waits(&self) {
        self.reading.store(true, Ordering::Relaxed);
    }

    /// hyper was polled and waits for something. It does not notice a peer that hangs up unless it is reading.
    pub(super) fn polled(&self) {
        let reading = self.reading.load(Ordering::Relaxed);
        if reading {
            self.reading.store(false, Ordering::Relaxed);
        }
        let looks = !reading && self.is(Protocol::Http1) && self.in_flight.load(Ordering::Relaxed) > 0;
        if looks != (self.not_reading_since.load(Ordering::Relaxed) != NEVER) {
            self.not_reading_since.store(if looks { self.now() } else { NEVER }, Ordering::Relaxed);
        }
    }

    /// Asks the socket to look whether the peer has hung up.
    pub(super) fn look(&self) {
        self.not_reading_since.store(self.now(), Ordering::Relaxed);
        self.looking.store(true, Ordering::Relaxed);
    }

    /// Whether the socket shall look. The answer is true once for each [`look`](Self::look).
    pub(super) fn take_look(&self) -> bool {
        self.looking.load(Ordering::Relaxed) && self.looking.swap(false, Ordering::Relaxed)
    }

    /// The server's stream ended.
    pub(super) fn ended(&self) {
        self.ended.store(self.now(), Ordering::Relaxed);
        self.discarded();
    }

    /// Bytes were discarded after that.
    pub(super) fn discarded(&self) {
        self.discarded.store(self.now(), Ordering::Relaxed);
    }

    /// The connection is closed because it is idle.
    pub(super) fn end_idle(&self) {
        self.ends_idle.store(true, Ordering::Relaxed);
    }

    /// Whether the socket reads for a while after the server's stream ended. The client may still send unless the
    /// connection was idle, or all of its last request was read.
    pub(super) fn lingers(&self) -> bool {
        let all_read = self.is(Protocol::Http1)
            && !self.has_body.load(Ordering::Relaxed)
            && self.moment(&self.head_since).is_none();
        !all_read && !self.ends_idle.load(Ordering::Relaxed)
    }

    /// Asks the socket to look for unread bytes at its next read.
    pub(super) fn probe(&self) {
        self.probing.store(true, Ordering::Relaxed);
    }

    /// Whether the socket shall look for unread bytes. The answer is true once for each [`probe`](Self::probe).
    pub(super) fn take_probe(&self) -> bool {
        self.probing.load(Ordering::Relaxed) && self.probing.swap(false, Ordering::Relaxed)
    }

    /// The next action if nothing happens before it is due.
    pub(super) fn due(&self, stage: Stage, timeouts: &Timeouts) -> Due {
        let draining = stage == Stage::Draining;
        if let Some(ended) = self.moment(&self.ended) {
            let quiet = self.at(self.discarded.load(Ordering::Relaxed)) + LINGER_QUIET;
            return Due::At(quiet.min(ended + LINGER), Action::Drop);
        }
        // First the count, then the time: see `request_ended`.
        let requests = self.in_flight.load(Ordering::Acquire);
        let blocked = self.blocked.load(Ordering::Relaxed);
        let in_flight = requests > 0 || blocked;
        let idle_since = self.at(self.idle_since.load(Ordering::Relaxed));
        match stage {
            Stage::ClosingIdle(since) if requests == 0 => {
                return Due::At(since.max(idle_since) + CLOSING_GRACE, Action::Drop);
            }
            Stage::Draining if in_flight => return Due::Now(Action::Close),
            _ if in_flight => {
                let look = self.moment(&self.not_reading_since).map(|since| (since + LOOK_INTERVAL, Action::Look));
                // hyper cannot close a connection before its client has read what was written.
                let reset = blocked.then(|| self.patience_ends(idle_since, timeouts)).flatten();
                let first = look.into_iter().chain(reset.map(|at| (at, Action::Reset))).min_by_key(|(at, _)| *at);
                return first.map_or(Due::Never, |(at, action)| Due::At(at, action));
            }
            Stage::Closing(since) | Stage::ClosingIdle(since) => {
                return Due::At(since.max(idle_since) + CLOSING_GRACE, Action::Drop);
            }
            Stage::Open | Stage::Draining => {}
        }
        if let Some(head_since) = self.moment(&self.head_since) {
            let mut at = head_since + timeouts.header_read;
            if draining && self.is(Protocol::Unknown) {
                at = at.min(self.opened + FIRST_REQUEST_GRACE);
            }
            return Due::At(at, Action::Drop);
        }
        if draining {
            return Due::Now(Action::CloseIdle);
        }
        Due::At(idle_since + timeouts.keep_alive, Action::CloseIdle)
    }

    /// When a client is disconnected that has taken nothing since `since`.
    fn patience_ends(&self, since: Instant, timeouts: &Timeouts) -> Option<Instant> {
        let patience = Duration::from_nanos(self.patience.load(Ordering::Relaxed));
        since.checked_add(timeouts.write.max(patience))
    }

    fn is(&self, protocol: Protocol) -> bool {
        self.protocol.load(Ordering::Relaxed) == protocol as u8
    }

    fn restart_idle_clock(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(NEVER - 1)
    }

    fn at(&self, nanos: u64) -> Instant {
        self.opened + Duration::from_nanos(nanos)
    }

    fn moment(&self, nanos: &AtomicU64) -> Option<Instant> {
        match nanos.load(Ordering::Relaxed) {
            NEVER => None,
            nanos => Some(self.at(nanos)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        keep_alive: Duration::from_secs(30),
        header_read: Duration::from_secs(10),
        write: WRITE_TIMEOUT,
        max_age: None,
    };

    fn open(activity: &Activity) -> Due {
        activity.due(Stage::Open, &TIMEOUTS)
    }

    fn draining(activity: &Activity) -> Due {
        activity.due(Stage::Draining, &TIMEOUTS)
    }

    fn drop_in(seconds: u64) -> Due {
        Due::At(Instant::now() + Duration::from_secs(seconds), Action::Drop)
    }

    fn reset_in(seconds: u64) -> Due {
        Due::At(Instant::now() + Duration::from_secs(seconds), Action::Reset)
    }

    fn close_idle_in(seconds: u64) -> Due {
        Due::At(Instant::now() + Duration::from_secs(seconds), Action::CloseIdle)
    }

    /// An HTTP/1 connection whose first request was served after a second.
    async fn served() -> Activity {
        let activity = Activity::new();
        activity.set_protocol(Protocol::Http1);
        activity.read();
        activity.request_began(false);
        advance(Duration::from_secs(1)).await;
        activity.request_ended();
        activity
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_header_is_due_from_the_arrival_of_the_connection() {
        let activity = Activity::new();
        assert_eq!(open(&activity), drop_in(10));
        advance(Duration::from_secs(4)).await;
        activity.set_protocol(Protocol::Http1);
        activity.read();
        assert_eq!(open(&activity), drop_in(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_header_is_due_from_its_first_byte() {
        let activity = served().await;
        advance(Duration::from_secs(20)).await;
        assert_eq!(open(&activity), close_idle_in(10));
        activity.read();
        assert_eq!(open(&activity), drop_in(10));
        advance(Duration::from_secs(4)).await;
        activity.read();
        assert_eq!(open(&activity), drop_in(6));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_due_while_a_request_is_in_flight() {
        let activity = served().await;
        activity.request_began(false);
        activity.request_began(false);
        assert_eq!(open(&activity), Due::Never);
        activity.request_ended();
        advance(Duration::from_secs(100)).await;
        assert_eq!(open(&activity), Due::Never);
        activity.request_ended();
        assert_eq!(open(&activity), close_idle_in(30));
    }

    fn look_in(since: Duration) -> Due {
        Due::At(Instant::now() + LOOK_INTERVAL - since, Action::Look)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_flight_whose_connection_is_not_read_is_looked_after_twice_a_second() {
        let activity = served().await;
        activity.request_began(true);
        activity.polled();
        let part = LOOK_INTERVAL / 3;
        assert_eq!(open(&activity), look_in(Duration::ZERO));
        advance(part).await;
        activity.polled();
        assert_eq!(open(&activity), look_in(part));
        assert_eq!(activity.due(Stage::Closing(Instant::now()), &TIMEOUTS), look_in(part), "draining as well");
        assert!(!activity.take_look());
        activity.look();
        assert!(activity.take_look() && !activity.take_look());
        activity.polled();
        assert_eq!(open(&activity), look_in(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_hyper_reads_is_not_looked_after() {
        let activity = served().await;
        activity.request_began(true);
        activity.read_waits();
        activity.polled();
        assert_eq!(open(&activity), Due::Never);
        activity.polled();
        assert_eq!(open(&activity), look_in(Duration::ZERO), "the last poll did not read");
        activity.read_waits();
        activity.polled();
        assert_eq!(open(&activity), Due::Never);
        activity.polled();
        activity.request_ended();
        activity.polled();
        activity.request_began(true);
        assert_eq!(open(&activity), Due::Never, "the next request begins a new half second");
        let http2 = Activity::new();
        http2.set_protocol(Protocol::Http2);
        http2.request_began(true);
        http2.polled();
        assert_eq!(open(&http2), Due::Never);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_waits_for_its_reader_is_in_flight() {
        let activity = served().await;
        advance(Duration::from_secs(7)).await;
        activity.write_blocked(true);
        assert_eq!((open(&activity), activity.in_flight()), (reset_in(30), 1));
        advance(Duration::from_secs(20)).await;
        activity.write_blocked(false);
        assert_eq!((open(&activity), activity.in_flight()), (close_idle_in(30), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn so_is_one_whose_last_bytes_are_in_the_stream_of_tls() {
        let activity = served().await;
        activity.flush_blocked(true);
        assert_eq!((open(&activity), activity.in_flight()), (reset_in(30), 1));
        activity.flush_blocked(false);
        assert_eq!((open(&activity), activity.in_flight()), (close_idle_in(30), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_may_let_its_client_take_nothing_for_longer_than_others() {
        let activity = served().await;
        activity.request_began(false);
        activity.write_blocked(true);
        for (patience, seconds) in [(None, 30), (Some(100), 100), (Some(10), 30)] {
            activity.set_patience(patience.map(Duration::from_secs));
            assert_eq!(open(&activity), reset_in(seconds));
        }
        activity.set_patience(Some(Duration::MAX));
        open(&activity);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_may_still_hang_up_while_its_next_request_is_unread() {
        let activity = served().await;
        activity.request_began(true);
        activity.write_blocked(true);
        activity.polled();
        assert_eq!(open(&activity), look_in(Duration::ZERO));
        advance(WRITE_TIMEOUT - LOOK_INTERVAL / 2).await;
        activity.look();
        assert_eq!(open(&activity), Due::At(Instant::now() + LOOK_INTERVAL / 2, Action::Reset));
    }

    #[tokio::test(start_paused = true)]
    async fn http2_waits_for_no_header_and_its_pings_do_not_count() {
        let activity = Activity::new();
        activity.set_protocol(Protocol::Http2);
        advance(Duration::from_secs(7)).await;
        activity.read();
        activity.write_blocked(false);
        assert_eq!(open(&activity), close_idle_in(23));
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_client_that_neither_reads_nor_sends_is_reset_when_its_ping_would_time_out() {
        let activity = Activity::new();
        activity.set_protocol(Protocol::Http2);
        activity.request_began(false);
        advance(Duration::from_secs(7)).await;
        activity.write_blocked(true);
        activity.write_blocked(true);
        assert_eq!(open(&activity), reset_in(30));
        advance(Duration::from_secs(20)).await;
        activity.request_ended();
        assert_eq!(open(&activity), reset_in(10));
        activity.request_began(false);
        activity.read();
        assert_eq!(open(&activity), reset_in(30));
        assert_eq!(activity.due(Stage::Closing(Instant::now()), &TIMEOUTS), reset_in(30));
        activity.write_blocked(false);
        assert_eq!(open(&activity), Due::Never);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_closes_what_is_idle_and_lets_what_is_in_flight_finish() {
        let activity = served().await;
        assert_eq!(draining(&activity), Due::Now(Action::CloseIdle));
        activity.request_began(false);
        assert_eq!(draining(&activity), Due::Now(Action::Close));
        assert_eq!(activity.due(Stage::Closing(Instant::now()), &TIMEOUTS), Due::Never);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_gives_a_new_connection_a_second_and_a_begun_header_its_time() {
        let activity = Activity::new();
        assert_eq!(draining(&activity), drop_in(1));
        activity.set_protocol(Protocol::Http1);
        activity.read();
        assert_eq!(draining(&activity), drop_in(10));
        let activity = served().await;
        activity.read();
        assert_eq!(draining(&activity), drop_in(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_answer_the_farewell_is_dropped() {
        let activity = served().await;
        let closing = Stage::ClosingIdle(Instant::now());
        assert_eq!(activity.due(closing, &TIMEOUTS), drop_in(5));
        // A farewell that cannot even be written is no request.
        activity.write_blocked(true);
        assert_eq!(activity.due(closing, &TIMEOUTS), drop_in(5));
        // A request that HTTP/2 let in at the last moment is one.
        activity.request_began(false);
        assert_eq!(activity.due(closing, &TIMEOUTS), reset_in(30));
        activity.write_blocked(false);
        assert_eq!(activity.due(closing, &TIMEOUTS), Due::Never);
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_ends_a_second_after_the_last_byte_and_after_five_seconds_at_most() {
        let activity = served().await;
        activity.ended();
        assert_eq!(open(&activity), drop_in(1));
        for _ in 0..9 {
            advance(LINGER_QUIET / 2).await;
            activity.discarded();
        }
        let half = Due::At(Instant::now() + LINGER_QUIET / 2, Action::Drop);
        assert_eq!(open(&activity), half);
        activity.request_began(false);
        assert_eq!(open(&activity), half);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lingers_if_its_client_may_still_be_sending() {
        let activity = Activity::new();
        assert!(activity.lingers());
        activity.set_protocol(Protocol::Http1);
        activity.read();
        assert!(activity.lingers(), "a header is half read");
        activity.request_began(true);
        activity.request_ended();
        assert!(activity.lingers(), "the body may be unread");
        activity.request_began(false);
        activity.request_ended();
        assert!(!activity.lingers(), "all was read");
        activity.read();
        assert!(activity.lingers(), "the next header has begun");
        activity.end_idle();
        assert!(!activity.lingers());
        let http2 = Activity::new();
        http2.set_protocol(Protocol::Http2);
        assert!(http2.lingers());
    }
}
