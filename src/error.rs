//! Errors: why a pool gave no result, and the types that carry the reason.
//!
//! | error | given by |
//! |---|---|
//! | [`Rejection`] | every part of the crate: which pool, which [`Reason`], whether the task had started |
//! | [`TaskError`] | closures and futures in a pool |
//! | [`OffloadError`] | services behind [`PoolLayer::errors`](crate::PoolLayer::errors) |
//! | [`UnknownPool`] | everything that takes the name of a pool |
//!
//! [`Display`](fmt::Display) gives a sentence for people; [`Debug`] gives every field. So a `main` that returns an error
//! shows its fields: print the error yourself if people read it.
//!
//! ```
//! fn run() -> Result<(), Box<dyn std::error::Error>> {
//!     let pools = tower_offload::Pools::default();
//!     pools.get("cpu")?;
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     if let Err(error) = run() {
//!         eprintln!("error: {error}");
//!         return std::process::ExitCode::FAILURE;
//!     }
//!     std::process::ExitCode::SUCCESS
//! }
//! ```

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::shield;
use crate::workload::Workload;

/// Why a pool gave no result for a task.
///
/// [`Rejection::started`] says whether the task had started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The queue was at its capacity.
    QueueFull,
    /// The task waited in the queue for the whole queue timeout.
    QueueTimeout,
    /// The pool is overloaded and chose to refuse this task.
    Shed,
    /// The task's own deadline passed.
    DeadlineExceeded,
    /// The pool is draining: it finishes what it has and takes nothing new.
    Draining,
    /// The pool has no worker and none could be started.
    NoWorkers,
    /// No pool has this name.
    UnknownPool,
    /// A header that the pool trusts cannot be read, and the pool refuses such requests.
    BadHeader,
    /// The task panicked.
    Panicked,
    /// The task started, and was dropped before it ended.
    CutOff,
}

/// A task that a pool refused or could not finish: which pool, why, and when to try again.
///
/// A [`PoolLayer`](crate::PoolLayer) turns it into an HTTP or gRPC response. With the feature `axum` it is an axum
/// response, and with the feature `tonic` a `tonic::Status`, so that handlers use `?`.
#[derive(Clone, Debug)]
pub struct Rejection {
    pool: Workload,
    reason: Reason,
    retry_after: Option<Duration>,
    started: bool,
    /// Replaces the sentence of the reason.
    detail: Option<Box<str>>,
}

/// The error of a name that no pool has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPool {
    name: Workload,
    known: Vec<Workload>,
}

/// The error of a closure or future that gave no value.
///
/// With the feature `axum` it is an axum response, and with the feature `tonic` it turns into a `tonic::Status`.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// The pool refused it before it started: running it again is safe.
    Rejected(Rejection),
    /// It started, and was dropped before it ended.
    CutOff(Rejection),
    /// It panicked.
    Panicked(Panic),
    /// No pool has the name that was asked for.
    UnknownPool(UnknownPool),
}

/// The error of a service behind [`PoolLayer::errors`](crate::PoolLayer::errors): its own, or the pool's.
#[derive(Debug)]
#[non_exhaustive]
pub enum OffloadError<E> {
    /// The pool gave no answer. [`Rejection::started`] says whether the handler had started.
    Rejected(Rejection),
    /// The service itself failed.
    Inner(E),
}

/// A panic of a task, with its payload.
pub struct Panic {
    message: String,
    /// A mutex only because the error is `Sync` and the payload is not. Taken by [`into_payload`](Self::into_payload).
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

// === impl Reason ===

impl Reason {
    /// The reason as a word in lower case with underscores: the `reason` of a response.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Shed => "shed",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Draining => "draining",
            Self::NoWorkers => "no_workers",
            Self::UnknownPool => "unknown_pool",
            Self::BadHeader => "bad_header",
            Self::Panicked => "panicked",
            Self::CutOff => "cut_off",
        }
    }

    const fn started(self) -> bool {
        matches!(self, Self::Panicked | Self::CutOff)
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::QueueFull => "its queue is full",
            Self::QueueTimeout => "the task waited longer than the queue timeout",
            Self::Shed => "it is overloaded",
            Self::DeadlineExceeded => "the task's deadline has passed",
            Self::Draining => "it is shutting down",
            Self::NoWorkers => "it has no worker and none could be started",
            Self::UnknownPool => "there is no such pool",
            Self::BadHeader => "a header cannot be read",
            Self::Panicked => "the task panicked",
            Self::CutOff => "the task was cut off",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl Rejection ===

impl Rejection {
    /// A rejection as a pool makes it, for tests of your own [`OnReject`](crate::reject::OnReject).
    #[must_use]
    pub const fn new(pool: Workload, reason: Reason, retry_after: Option<Duration>) -> Self {
        Self { pool, reason, retry_after, started: reason.started(), detail: None }
    }

    /// The pool that refused.
    #[must_use]
    pub const fn pool(&self) -> &Workload {
        &self.pool
    }

    /// Why it refused.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// How long to wait before trying again, from now on; `None` if waiting does not help.
    ///
    /// [`retry_after_seconds`](Self::retry_after_seconds) is the value for a `Retry-After` header.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the task may have started. If not, running it again is safe.
    #[must_use]
    pub const fn started(&self) -> bool {
        self.started
    }

    pub(crate) fn with_detail(self, detail: &impl fmt::Display) -> Self {
        Self { detail: Some(detail.to_string().into()), ..self }
    }

    pub(crate) fn with_started(self, started: bool) -> Self {
        Self { started, ..self }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, reason, detail, .. } = self;
        write!(f, "pool `{pool}` gave no answer: {}", detail.as_deref().unwrap_or(reason.sentence()))
    }
}

impl Error for Rejection {}

// === impl UnknownPool ===

impl UnknownPool {
    pub(crate) const fn new(name: Workload, known: Vec<Workload>) -> Self {
        Self { name, known }
    }

    /// The name that was asked for.
    #[must_use]
    pub const fn name(&self) -> &Workload {
        &self.name
    }

    /// The names there are.
    #[must_use]
    pub fn known(&self) -> &[Workload] {
        &self.known
    }
}

impl fmt::Display for UnknownPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known.is_empty() {
            return write!(f, "there is no pool `{}`, nor any other", self.name);
        }
        write!(f, "there is no pool `{}`; the pools are ", self.name)?;
        for (index, name) in self.known.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{name}`")?;
        }
        Ok(())
    }
}

impl Error for UnknownPool {}

// === impl TaskError ===

impl TaskError {
    /// Whether the pool refused the task before it started: running it again is safe.
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// Whether the task started, and was dropped before it ended.
    #[must_use]
    pub const fn is_cut_off(&self) -> bool {
        matches!(self, Self::CutOff(_))
    }

    /// Whether the task panicked.
    #[must_use]
    pub const fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) | Self::CutOff(rejection) => rejection.fmt(f),
            Self::Panicked(panic) => panic.fmt(f),
            Self::UnknownPool(unknown) => unknown.fmt(f),
        }
    }
}

impl Error for TaskError {
    /// The source of the error inside, because `Display` shows that error already.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(rejection) | Self::CutOff(rejection) => rejection.source(),
            Self::Panicked(panic) => panic.source(),
            Self::UnknownPool(unknown) => unknown.source(),
        }
    }
}

impl From<Rejection> for TaskError {
    fn from(rejection: Rejection) -> Self {
        if rejection.started() { Self::CutOff(rejection) } else { Self::Rejected(rejection) }
    }
}

impl From<UnknownPool> for TaskError {
    fn from(unknown: UnknownPool) -> Self {
        Self::UnknownPool(unknown)
    }
}

// === impl OffloadError ===

impl<E: Into<Box<dyn Error + Send + Sync>>> OffloadError<E> {
    /// The [`Rejection`] or the service's own error in a box: the error type of many layers of tower.
    ///
    /// ```
    /// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    /// use tower_offload::error::OffloadError;
    /// use tower_offload::{Cpu, PoolLayer, Pools, Rejection};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let pools = Pools::default();
    /// let service = ServiceBuilder::new()
    ///     .buffer(16)
    ///     .map_err(OffloadError::into_boxed)
    ///     .layer(PoolLayer::<Cpu>::new(&pools).any_request())
    ///     .service(service_fn(|text: &'static str| async move { Ok::<_, BoxError>(text.parse::<i32>()?) }));
    /// assert_eq!(service.clone().oneshot("12").await?, 12);
    /// let error = service.oneshot("twelve").await.unwrap_err();
    /// assert!(error.is::<std::num::ParseIntError>() && !error.is::<Rejection>());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_boxed(self) -> Box<dyn Error + Send + Sync> {
        match self {
            Self::Rejected(rejection) => rejection.into(),
            Self::Inner(error) => error.into(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for OffloadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for OffloadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(_) => None,
            Self::Inner(error) => error.source(),
        }
    }
}

// === impl Panic ===

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = payload
            .downcast_ref::<&'static str>()
            .map(|&message| message.to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic payload that is not a string".to_owned());
        Self { message, payload: Mutex::new(Some(payload)) }
    }

    /// The message of `panic!`, if the payload is a string.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The payload of the panic, for [`std::panic::resume_unwind`].
    #[must_use]
    pub fn into_payload(mut self) -> Box<dyn Any + Send> {
        self.take().expect("the value is taken once, and this takes `self`")
    }

    /// Continues the panic on this thread.
    pub fn resume(self) -> ! {
        std::panic::resume_unwind(self.into_payload())
    }

    fn take(&mut self) -> Option<Box<dyn Any + Send>> {
        self.payload.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Contains a panic of the payload's own destructor.
impl Drop for Panic {
    fn drop(&mut self) {
        if let Some(payload) = self.take() {
            shield::drop_payload(payload);
        }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task panicked: {}", self.message())
    }
}

impl Error for Panic {}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.message()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(reason: Reason) -> Rejection {
        Rejection::new(Workload::CPU, reason, None)
    }

    #[test]
    fn a_rejection_of_a_task_that_started_is_cut_off_and_not_rejected() {
        assert!(TaskError::from(of(Reason::QueueFull)).is_rejected());
        assert!(TaskError::from(of(Reason::DeadlineExceeded)).is_rejected());
        for started in [of(Reason::DeadlineExceeded).with_started(true), of(Reason::CutOff)] {
            let error = TaskError::from(started);
            assert!(error.is_cut_off() && !error.is_rejected(), "{error:?}");
        }
    }

    #[test]
    fn display_is_a_sentence_and_debug_shows_the_fields() {
        let error = TaskError::from(of(Reason::QueueFull));
        assert_eq!(error.to_string(), "pool `cpu` gave no answer: its queue is full");
        let shown = format!("{error:?}");
        assert!(shown.starts_with("Rejected(Rejection {") && shown.contains("started: false"), "{shown}");
        let shown = format!("{:?}", OffloadError::<String>::Rejected(of(Reason::QueueFull)));
        assert!(shown.contains("reason: QueueFull"), "{shown}");
        let unknown = UnknownPool::new(Workload::from("cpus"), vec![Workload::CPU]);
        assert_eq!(unknown.to_string(), "there is no pool `cpus`; the pools are `cpu`");
        assert!(format!("{unknown:?}").starts_with("UnknownPool {"));
        let panic = TaskError::Panicked(Panic::new(Box::new("no such picture")));
        assert_eq!(panic.to_string(), "the task panicked: no such picture");
        assert_eq!(format!("{panic:?}"), "Panicked(Panic(\"no such picture\"))");
    }
}
