//! Why a job did not run, or did not end: the causes, and the errors that carry them.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::shield;
use crate::workload::Workload;

/// Why a pool gave no result for a job.
///
/// [`Rejection::started`] says whether the job had begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The queue was at its capacity.
    QueueFull,
    /// The job waited in the queue for the whole queue timeout.
    QueueTimeout,
    /// The pool is overloaded and chose this job to be refused.
    Shed,
    /// The job's own deadline passed.
    DeadlineExceeded,
    /// The pool is draining: it finishes what it has and takes nothing new.
    Draining,
    /// The pool has no worker and none could be started.
    NoWorkers,
    /// No pool has this name.
    UnknownPool,
    /// A header that the pool believes cannot be read, and the pool refuses such requests.
    BadHeader,
    /// The job panicked.
    Panicked,
    /// The job began, and was dropped before it ended.
    CutOff,
}

/// A job that a pool refused or could not finish: which pool, why, and when to try again.
///
/// The layer turns it into an HTTP or gRPC answer; services that speak neither get it as an error.
#[derive(Clone)]
pub struct Rejection {
    pool: Workload,
    cause: Cause,
    retry_after: Option<Duration>,
    started: bool,
    /// What there is to say beyond the cause.
    detail: Option<Box<str>>,
}

/// No pool has this name.
#[derive(Clone, PartialEq, Eq)]
pub struct UnknownPool {
    name: Workload,
    known: Vec<Workload>,
}

/// A closure or future that gave no value: refused, cut off, or panicked.
#[non_exhaustive]
pub enum JobError {
    /// The pool refused it, or dropped it before it ended.
    Rejected(Rejection),
    /// It panicked.
    Panicked(Panic),
    /// No pool has the name that was asked for.
    UnknownPool(UnknownPool),
}

/// The error of a service whose rejections are errors: its own, or the pool's.
#[non_exhaustive]
pub enum OffloadError<E> {
    /// The pool refused the request, or its handler panicked.
    Rejected(Rejection),
    /// The service itself failed.
    Inner(E),
}

/// The value that a job panicked with.
pub struct Panic {
    message: String,
    /// Behind a lock only so that the error can be shared between threads.
    /// Taken only by [`into_payload`](Self::into_payload).
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

/// An error and its causes in one line: what `main` shows of the error that it returns.
#[cfg(any(feature = "server", feature = "prometheus"))]
pub(crate) fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()).map(ToString::to_string) {
        // Some errors end with their cause already.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

// === impl Cause ===

impl Cause {
    /// The cause as one word of lower case and underscores: the `reason` of an answer.
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
            Self::QueueTimeout => "the job waited longer than the queue timeout",
            Self::Shed => "it is overloaded",
            Self::DeadlineExceeded => "the job's deadline has passed",
            Self::Draining => "it is shutting down",
            Self::NoWorkers => "it has no worker and none could be started",
            Self::UnknownPool => "there is no such pool",
            Self::BadHeader => "a header cannot be read",
            Self::Panicked => "the job panicked",
            Self::CutOff => "the job was cut off",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl Rejection ===

impl Rejection {
    /// A rejection as a pool makes it: for the tests of one's own [`Reject`](crate::Reject).
    #[must_use]
    pub const fn new(pool: Workload, cause: Cause, retry_after: Option<Duration>) -> Self {
        Self { pool, cause, retry_after, started: cause.started(), detail: None }
    }

    /// The pool that refused.
    #[must_use]
    pub const fn pool(&self) -> &Workload {
        &self.pool
    }

    /// Why it refused.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// When to try again, where waiting helps.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the job may have begun. If not, running it again is safe.
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
        let Self { pool, cause, detail, .. } = self;
        write!(f, "pool `{pool}` gave no answer: {}", detail.as_deref().unwrap_or(cause.sentence()))
    }
}

/// The sentence, because `main` shows the error that it returns in this form; `{:#?}` shows every field.
impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("Rejection")
            .field("pool", &self.pool)
            .field("cause", &self.cause)
            .field("retry_after", &self.retry_after)
            .field("started", &self.started)
            .field("detail", &self.detail)
            .finish()
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

/// The same text as [`Display`](fmt::Display), because `main` shows the error that it returns in this form.
impl fmt::Debug for UnknownPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for UnknownPool {}

// === impl JobError ===

impl JobError {
    /// Whether the pool refused the job, so that it never began: running it again is safe.
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected(rejection) if !rejection.started())
    }

    /// Whether the job panicked.
    #[must_use]
    pub const fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Panicked(panic) => panic.fmt(f),
            Self::UnknownPool(unknown) => unknown.fmt(f),
        }
    }
}

/// What the error inside shows, because `main` shows the error that it returns in this form.
impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => fmt::Debug::fmt(rejection, f),
            Self::Panicked(panic) => fmt::Display::fmt(panic, f),
            Self::UnknownPool(unknown) => fmt::Debug::fmt(unknown, f),
        }
    }
}

impl Error for JobError {
    /// This error shows itself as the one inside does, so its source is the source of that.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(rejection) => rejection.source(),
            Self::Panicked(panic) => panic.source(),
            Self::UnknownPool(unknown) => unknown.source(),
        }
    }
}

impl From<Rejection> for JobError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<UnknownPool> for JobError {
    fn from(unknown: UnknownPool) -> Self {
        Self::UnknownPool(unknown)
    }
}

// === impl OffloadError ===

impl<E: Into<Box<dyn Error + Send + Sync>>> OffloadError<E> {
    /// The [`Rejection`] or the service's own error in a box, as many layers of tower give and take their errors.
    ///
    /// ```
    /// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    /// use tower_offload::{Cpu, OffloadError, PoolLayer, Pools, Rejection};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let pools = Pools::default();
    /// let service = ServiceBuilder::new()
    ///     .buffer(16)
    ///     .map_err(OffloadError::into_boxed)
    ///     .layer(PoolLayer::<Cpu>::new(&pools).errors())
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

/// What the error inside shows, because `main` shows the error that it returns in this form.
impl<E: fmt::Debug> fmt::Debug for OffloadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => fmt::Debug::fmt(rejection, f),
            Self::Inner(error) => fmt::Debug::fmt(error, f),
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
            .unwrap_or_else(|| "a value that is no text".to_owned());
        Self { message, payload: Mutex::new(Some(payload)) }
    }

    /// What was said: the message of `panic!`, where it was one.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The value itself, for [`std::panic::resume_unwind`].
    #[must_use]
    pub fn into_payload(mut self) -> Box<dyn Any + Send> {
        self.take().expect("the value is taken once, and this takes `self`")
    }

    /// Goes on with the panic on this thread.
    pub fn resume(self) -> ! {
        std::panic::resume_unwind(self.into_payload())
    }

    fn take(&mut self) -> Option<Box<dyn Any + Send>> {
        self.payload.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The value may panic when it is dropped; that ends here.
impl Drop for Panic {
    fn drop(&mut self) {
        if let Some(payload) = self.take() {
            shield::drop_payload(payload);
        }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the job panicked: {}", self.message())
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

    #[test]
    fn only_a_job_that_never_began_was_rejected() {
        let error = |rejection| JobError::Rejected(rejection);
        let of = |cause| Rejection::new(Workload::CPU, cause, None);
        assert!(error(of(Cause::QueueFull)).is_rejected());
        assert!(error(of(Cause::DeadlineExceeded)).is_rejected());
        assert!(!error(of(Cause::DeadlineExceeded).with_started(true)).is_rejected());
        assert!(!error(of(Cause::CutOff)).is_rejected());
        assert!(!JobError::Panicked(Panic::new(Box::new("it began"))).is_rejected());
    }

    #[test]
    fn what_main_shows_of_an_error_is_its_sentence() {
        let rejection = || Rejection::new(Workload::CPU, Cause::QueueFull, None);
        let sentence = "pool `cpu` gave no answer: its queue is full";
        assert_eq!(format!("{:?}", rejection()), sentence);
        assert_eq!(format!("{:?}", JobError::from(rejection())), sentence);
        assert_eq!(format!("{:?}", OffloadError::<String>::Rejected(rejection())), sentence);
        assert!(format!("{:#?}", JobError::from(rejection())).contains("started: false"));
        let unknown = UnknownPool::new(Workload::from("cpus"), vec![Workload::CPU]);
        assert_eq!(format!("{unknown:?}"), "there is no pool `cpus`; the pools are `cpu`");
        let panic = Panic::new(Box::new("no such picture"));
        assert_eq!(format!("{:?}", JobError::Panicked(panic)), "the job panicked: no such picture");
    }
}
