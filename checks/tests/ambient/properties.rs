//! The properties of a context that travels with tasks.

use std::convert::Infallible;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use http::{Request, Response};
use tokio::sync::oneshot;
use tokio_test::block_on;
use tower::{Layer, ServiceExt, service_fn};
use tower_offload::pools::PoolsBuilder;
use tower_offload::{Cpu, Io, PoolConfig, PoolLayer, Pools};

/// A context of the current thread, identified by a number.
pub(crate) trait Ambient: 'static {
    /// Lets the context travel with the tasks of these pools.
    fn carried(pools: PoolsBuilder) -> PoolsBuilder;

    /// Runs `run` in the context with this number.
    fn enter<T>(number: u8, run: impl FnOnce() -> T) -> T;

    /// The number of the current context; `None` outside of all.
    fn current() -> Option<u8>;
}

/// How often a task awaits.
const AWAITS: usize = 20;

fn pools<A: Ambient>(workers: usize) -> Pools {
    let config = PoolConfig::new(workers);
    A::carried(Pools::builder().pool(Cpu, config.clone()).pool(Io, config)).build().expect("the settings are valid")
}

/// Awaits a wake-up from a new thread, which is in the context 99.
async fn await_another_thread<A: Ambient>() {
    let (wake, woken) = oneshot::channel();
    thread::spawn(move || A::enter(99, || wake.send(()).expect("the task awaits it")));
    woken.await.expect("the thread wakes the task");
}

/// The contexts that a task sees before and after each of its awaits.
async fn seen_across_awaits<A: Ambient>() -> Vec<Option<u8>> {
    let mut seen = vec![A::current()];
    for _ in 0..AWAITS {
        await_another_thread::<A>().await;
        seen.push(A::current());
    }
    seen
}

pub(crate) fn a_closure_and_a_future_see_the_context_of_their_caller<A: Ambient>() {
    let pools = pools::<A>(1);
    let closure = A::enter(1, || pools.submit_to_pool(Cpu, A::current).expect("there is room"));
    let future = A::enter(2, || pools.submit_to_pool(Cpu, seen_across_awaits::<A>()).expect("there is room"));
    let awaited = A::enter(3, || block_on(pools.run_in_pool(Cpu, A::current)));
    assert_eq!(closure.wait().expect("it ends"), Some(1));
    assert_eq!(future.wait().expect("it ends"), [Some(2); AWAITS + 1]);
    assert_eq!(awaited.expect("it ends"), Some(3));
}

pub(crate) fn a_handler_sees_the_context_of_its_request<A: Ambient>() {
    let pools = pools::<A>(1);
    let handler = service_fn(|_: Request<()>| async {
        let seen = seen_across_awaits::<A>().await;
        Ok::<_, Infallible>(Response::new(format!("{seen:?}")))
    });
    let service = PoolLayer::<Cpu>::new(&pools).errors();
    let service = service.layer(handler);
    for number in [1, 2] {
        let response = A::enter(number, || block_on(service.clone().oneshot(Request::new(()))));
        let seen = response.expect("it never fails").into_body();
        assert_eq!(seen, format!("{:?}", [Some(number); AWAITS + 1]));
    }
}

/// Many tasks await on few workers, so that each worker changes between contexts all the time.
pub(crate) fn neighbours_keep_their_contexts_apart<A: Ambient>() {
    let pools = pools::<A>(2);
    let submit = |number| pools.submit_to_pool(Cpu, seen_across_awaits::<A>()).map(|task| (number, task));
    let tasks: Vec<_> = (0..40)
        .map(|number| match number {
            // Every fourth task has no context.
            _ if number % 4 == 0 => submit(None),
            _ => A::enter(number, || submit(Some(number))),
        })
        .collect();
    for task in tasks {
        let (number, task) = task.expect("there is room");
        assert_eq!(task.wait().expect("it ends"), [number; AWAITS + 1]);
    }
}

pub(crate) fn a_nested_task_sees_the_context_of_the_task_that_submits_it<A: Ambient>() {
    let pools = pools::<A>(1);
    for inner_pool in ["cpu", "io"] {
        let inner = pools.clone();
        let outer = async move {
            let inherited = inner.run_in_pool(inner_pool, seen_across_awaits::<A>()).await.expect("it ends");
            let own = A::enter(2, || inner.submit_to_pool(inner_pool, seen_across_awaits::<A>()));
            let own = own.expect("there is room").await.expect("it ends");
            (inherited, own, A::current())
        };
        let outer = A::enter(1, || pools.submit_to_pool(Cpu, outer)).expect("there is room");
        let (inherited, own, after) = outer.wait().expect("it ends");
        assert_eq!(inherited, [Some(1); AWAITS + 1], "in `{inner_pool}`");
        assert_eq!(own, [Some(2); AWAITS + 1], "in `{inner_pool}`");
        assert_eq!(after, Some(1), "after tasks in `{inner_pool}`");
    }
}

/// Also if the task panics or is cancelled.
pub(crate) fn a_worker_keeps_no_context<A: Ambient>() {
    let pools = pools::<A>(1);
    let outside = || pools.submit_to_pool(Cpu, A::current).expect("there is room").wait().expect("it ends");
    let panics = || -> u8 { std::panic::resume_unwind(Box::new("on purpose")) };
    A::enter(1, || pools.submit_to_pool(Cpu, panics).expect("there is room").wait()).expect_err("it panics");
    assert_eq!(outside(), None);
    let (begins, begun) = channel();
    let endless = async move {
        begins.send(()).expect("the test waits for it");
        std::future::pending::<()>().await;
    };
    let endless = A::enter(2, || pools.submit_to_pool(Cpu, endless).expect("there is room"));
    begun.recv().expect("it begins");
    endless.cancel();
    assert_eq!(outside(), None);
}

/// Sends the context that it is dropped in.
struct Dropped<A: Ambient>(Sender<Option<u8>>, std::marker::PhantomData<fn() -> A>);

impl<A: Ambient> Drop for Dropped<A> {
    fn drop(&mut self) {
        self.0.send(A::current()).expect("the test waits for it");
    }
}

pub(crate) fn a_cancelled_task_is_dropped_in_its_context<A: Ambient>() {
    let pools = pools::<A>(1);
    let (sender, dropped) = channel();
    let (begins, begun) = channel();
    let value = Arc::new(Mutex::new(Dropped::<A>(sender, std::marker::PhantomData)));
    let endless = async move {
        let _value = value;
        begins.send(()).expect("the test waits for it");
        std::future::pending::<()>().await;
    };
    let endless = A::enter(7, || pools.submit_to_pool(Cpu, endless).expect("there is room"));
    begun.recv().expect("it begins");
    endless.cancel();
    assert_eq!(dropped.recv().expect("it is dropped"), Some(7));
}

/// One test for each property of one context.
macro_rules! properties_of {
    ($ambient:ty) => {
        crate::properties::properties_of! { $ambient:
            a_closure_and_a_future_see_the_context_of_their_caller,
            a_handler_sees_the_context_of_its_request,
            neighbours_keep_their_contexts_apart,
            a_nested_task_sees_the_context_of_the_task_that_submits_it,
            a_worker_keeps_no_context,
            a_cancelled_task_is_dropped_in_its_context,
        }
    };
    ($ambient:ty: $($property:ident,)*) => {$(
        #[test]
        fn $property() {
            crate::properties::$property::<$ambient>();
        }
    )*};
}

pub(crate) use properties_of;
