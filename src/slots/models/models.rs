//! `Models`: the handle through which callers use models.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::inner::{Asked, Inner, Wanted};
use super::lease::ModelLease;
use crate::current;
use crate::error::{ModelError, Reason, TaskError};
use crate::function_name::function_name;
use crate::pool::{ModelsStats, Submission, TaskOptions, always_ok};
use crate::pools::{IntoTask, call_here};
use crate::timer;

/// Models by key, loaded when they are first needed, under a budget of bytes.
///
/// A model is shared: all callers of a key use the same one at once. A model that needs `&mut` is kept in a `Mutex`, or is
/// itself a [`Slots`](super::super::Slots). The module's docs have an [overview](crate::slots).
///
/// Cheap to clone; every clone is the same models.
pub struct Models<M: Send + Sync + 'static> {
    pub(super) inner: Arc<Inner<M>>,
}

/// How often a caller that waits looks whether it is time to make room.
const LOOK: Duration = Duration::from_secs(1);

/// A caller that waits. When it leaves, it counts no longer, and a load that nobody waits for any more makes way.
struct Waiting<'a, M: Send + Sync + 'static> {
    inner: &'a Arc<Inner<M>>,
    key: &'a str,
}

impl<M: Send + Sync + 'static> Models<M> {
    /// Runs a closure with a model, as a task of the pool.
    ///
    /// The model is loaded first, if it is not: the caller waits outside of the pool, and holds no permit. If the pool would
    /// reject the task now, nothing is loaded for it. The model stays loaded until the task has ended.
    ///
    /// # Errors
    ///
    /// If the key cannot be used, the model cannot be loaded or is larger than the budget, too many callers wait for
    /// loads, or the pool rejects the task or cannot finish it, or the closure panics. A task for which too many callers
    /// wait, or whose deadline passes before its model is loaded, counts as one that the pool rejected.
    #[track_caller]
    pub fn run<R, F>(&self, key: &str, task: F) -> impl Future<Output = Result<R, ModelError>> + Send + use<M, R, F>
    where
        F: FnOnce(&M) -> R + Send + 'static,
        R: Send + 'static,
    {
        self.run_with(TaskOptions::new(), key, task)
    }

    /// Runs a closure with a model, with the task's deadline, priority or caller set. The deadline also ends the wait for
    /// the model.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn run_with<R, F>(
        &self,
        options: TaskOptions,
        key: &str,
        task: F,
    ) -> impl Future<Output = Result<R, ModelError>> + Send + use<M, R, F>
    where
        F: FnOnce(&M) -> R + Send + 'static,
        R: Send + 'static,
    {
        let submitted_at = Location::caller();
        let (inner, checked) = (self.inner.clone(), check(key));
        let cold = checked.as_ref().ok().cloned();
        let (pool, lease) = (self.inner.pool.clone(), self.ask(options, checked, Wanted::Any));
        async move {
            let function = move || function_name::<F>(false, submitted_at);
            if let (Some(pool), Some(key)) = (&pool, cold)
                && !inner.has(&key)
                && let Some(rejection) = pool.reject_early(options, false, function)
            {
                return Err(rejection.into());
            }
            let lease = match (lease.await, &pool) {
                (Ok(lease), _) => lease,
                (Err(error), pool) => {
                    // The task is not offered to the pool, which counts it as one that was rejected.
                    if let (ModelError::Task(TaskError::Rejected(rejection)), Some(pool)) = (&error, pool) {
                        pool.count_rejected(rejection.reason(), function);
                    }
                    return Err(error);
                }
            };
            let task = move || task(&lease);
            let Some(pool) = pool else { return Ok(call_here(task)?) };
            let future = IntoTask::into_task(task);
            let submission = Submission::new(future, options, function, always_ok);
            Ok(pool.submit_future(submission).map_err(|rejected| rejected.rejection)?.await?)
        }
    }

    /// Returns a model, and keeps it loaded until the lease is dropped; for code that runs in a pool already. A task that
    /// waits here keeps its permit, but no worker.
    ///
    /// A caller that holds a model and waits for another one may wait until its deadline, if the two do not fit. A caller
    /// that holds a model and asks for it again may wait for seconds while the model has to make room for another one.
    ///
    /// # Errors
    ///
    /// If the key cannot be used, the model cannot be loaded or is larger than the budget, too many callers wait for
    /// loads, or the deadline of the task passes.
    pub fn get(&self, key: &str) -> impl Future<Output = Result<ModelLease<M>, ModelError>> + Send + use<M> {
        self.get_with(TaskOptions::new(), key)
    }

    /// The same, with a deadline.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_with(
        &self,
        options: TaskOptions,
        key: &str,
    ) -> impl Future<Output = Result<ModelLease<M>, ModelError>> + Send + use<M> {
        self.ask(options, check(key), Wanted::Any)
    }

    /// Loads a model anew while the one before serves, replaces that one, and returns the new one.
    ///
    /// The function of [`load`](super::ModelsBuilder::load) is called for the key again, and should also warm the model
    /// up: callers of the key get the model before until the new one is there, and none waits. If the load fails, nothing
    /// has changed. Callers that hold the model before keep it. A model that is not loaded is loaded, even if its last
    /// load failed a moment ago.
    ///
    /// # Several swaps
    ///
    /// Swaps of one key that wait for their turn share one load. A swap that is asked for while a load of the key runs is
    /// not served by that one, which may have read an earlier file: another load follows it.
    ///
    /// # Memory
    ///
    /// No other model makes room for the new one. If it does not fit, the budget is exceeded until the model before is
    /// dropped, by one model at most: a second swap that does not fit waits.
    ///
    /// # Cancellation
    ///
    /// If every caller of the swap has dropped its future, nothing changes: the load is not begun, or its model is dropped.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). [`Unloaded`](ModelError::Unloaded) if the model is unloaded meanwhile.
    pub fn swap(&self, key: &str) -> impl Future<Output = Result<ModelLease<M>, ModelError>> + Send + use<M> {
        self.ask(TaskOptions::new(), check(key), Wanted::Swap)
    }

    fn ask(
        &self,
        options: TaskOptions,
        checked: Result<Arc<str>, ModelError>,
        wanted: Wanted,
    ) -> impl Future<Output = Result<ModelLease<M>, ModelError>> + Send + use<M> {
        let inner = self.inner.clone();
        let deadline = options.deadline.or_else(current::deadline);
        async move {
            let key = checked?;
            match inner.ask(&key, wanted) {
                Asked::Now(result) => result,
                Asked::Later(receiver) => {
                    let mut limit = deadline.map(|deadline| timer::sleep_until(deadline.moment()));
                    let _waiting = Waiting { inner: &inner, key: &key };
                    // Dropped before `waiting`, so that the caller has left when that looks for the next load.
                    let mut receiver = receiver;
                    let mut look = timer::sleep(LOOK);
                    let answer = poll_fn(|cx| {
                        if let Poll::Ready(answer) = Pin::new(&mut receiver).poll(cx) {
                            return Poll::Ready(Some(answer));
                        }
                        while Pin::new(&mut look).poll(cx).is_ready() {
                            inner.start_loads();
                            look = timer::sleep(LOOK);
                        }
                        match limit.as_mut().map(|limit| Pin::new(limit).poll(cx)) {
                            Some(Poll::Ready(())) => Poll::Ready(None),
                            _ => Poll::Pending,
                        }
                    })
                    .await;
                    match answer {
                        Some(Ok(result)) => result,
                        Some(Err(_closed)) => Err(ModelError::Unloaded(key.clone())),
                        None => Err(inner.rejection(Reason::DeadlineExceeded).into()),
                    }
                }
            }
        }
    }

    /// Unloads a model, and forgets its weight and its failures. Callers that hold it keep it. Callers that wait for its
    /// load get [`Unloaded`](ModelError::Unloaded). Whether there was such a model.
    ///
    /// A load that runs cannot be stopped. Its bytes count until it ends, and callers of its key get `Unloaded` until
    /// then. Loads of other keys do not wait for it.
    pub fn unload(&self, key: &str) -> bool {
        self.inner.unload(key)
    }

    /// The numbers of these models at this instant.
    #[must_use]
    pub fn stats(&self) -> ModelsStats {
        self.inner.stats()
    }
}

/// A key that names a model, and no path out of a folder.
fn check(key: &str) -> Result<Arc<str>, ModelError> {
    check_for(key, cfg!(windows))
}

/// On Windows, a `:` begins a path on a drive or a stream of a file.
fn check_for(key: &str, windows: bool) -> Result<Arc<str>, ModelError> {
    let reason = if key.is_empty() {
        "it is empty"
    } else if key.len() > 256 {
        "it is longer than 256 bytes"
    } else if key.chars().any(char::is_control) {
        "it has control characters"
    } else if key.starts_with('/') || key.contains('\\') || key.split('/').any(|part| ["", ".", ".."].contains(&part)) {
        "it is a path that may lead out of a folder"
    } else if windows && (key.contains(':') || key.split('/').any(is_other_name_on_windows)) {
        "it is a path that may lead out of a folder on Windows"
    } else {
        return Ok(Arc::from(key));
    };
    Err(ModelError::BadKey { key: key.chars().take(64).collect(), reason })
}

/// Whether Windows takes a part of a path for a device, or for another name: it drops dots and spaces at the end.
fn is_other_name_on_windows(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or_default().trim_end_matches(' ').to_ascii_uppercase();
    let is_port = |name: &str| {
        let number = stem.strip_prefix(name).map(|number| number.chars().collect::<Vec<_>>());
        matches!(number.as_deref(), Some(['0'..='9' | '¹' | '²' | '³']))
    };
    let is_device = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&&*stem);
    part.ends_with(['.', ' ']) || is_device || is_port("COM") || is_port("LPT")
}

impl<M: Send + Sync + 'static> Drop for Waiting<'_, M> {
    fn drop(&mut self) {
        self.inner.waits_no_longer(self.key);
    }
}

impl<M: Send + Sync + 'static> Clone for Models<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<M: Send + Sync + 'static> fmt::Debug for Models<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::check_for;

    #[test]
    fn keys_that_leave_a_folder_on_windows_are_refused_there() {
        for key in
            ["C:x", "a/C:", "a:b", "a/.. /b", "a.", "b/...", "nul", "a/NUL.txt", "com1", "lpt\u{b9}.bin", "aux .x"]
        {
            check_for(key, true).expect_err(key);
            check_for(key, false).expect(key);
        }
        for key in ["meta/llama-3.2_1B", "console", "com", "com10", "nullable/v1.5", "a b", ".hidden"] {
            check_for(key, true).expect(key);
        }
        check_for("a\\b", false).expect_err("a backslash is refused everywhere");
    }
}
