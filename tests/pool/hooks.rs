//! The application's settings of code and threads: its context, hooks for workers, and the stack size.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower_offload::pools::BuildError;
use tower_offload::{Config, PoolConfig, Pools};

use crate::support::{Held, end_of, hold, stats, until};

thread_local! { static TENANT: Cell<u32> = const { Cell::new(0) } }

fn carries_the_tenant() -> impl Fn(&mut dyn FnMut()) + Send {
    let tenant = TENANT.get();
    move |run: &mut dyn FnMut()| {
        let before = TENANT.replace(tenant);
        run();
        TENANT.set(before);
    }
}

#[test]
fn a_context_surrounds_each_poll_and_the_drop_of_the_future() {
    struct Dropped(std::sync::mpsc::Sender<u32>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.send(TENANT.get()).unwrap();
        }
    }
    let pools = Pools::builder().pool("ctx", PoolConfig::new(1)).context(carries_the_tenant).build().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    for tenant in [7, 8] {
        TENANT.set(tenant);
        let dropped = Dropped(sender.clone());
        let seen = pools.submit_to_pool("ctx", async move {
            let first = TENANT.get();
            tokio::task::yield_now().await;
            let _dropped = dropped;
            [first, TENANT.get()]
        });
        assert_eq!(end_of(seen.unwrap()).unwrap(), [tenant; 2]);
        assert_eq!(receiver.recv().unwrap(), tenant);
    }
}

#[test]
fn a_context_whose_destructor_panics_harms_no_pool() {
    struct Fails;
    impl Drop for Fails {
        fn drop(&mut self) {
            panic!("the context is dropped");
        }
    }
    let capture = || {
        let fails = Fails;
        move |run: &mut dyn FnMut()| {
            let _fails = &fails;
            run();
        }
    };
    let pools = Pools::builder().pool("fails", PoolConfig::new(1)).context(capture).build().unwrap();
    let here = || std::thread::current().id();
    let [one, two] = [(); 2].map(|()| end_of(pools.submit_to_pool("fails", here).unwrap()).unwrap());
    assert_eq!(one, two, "the only worker has survived");
    assert_eq!((stats(&pools, "fails").counts.ok, stats(&pools, "fails").in_flight), (2, 0));
}

#[test]
fn a_context_hook_that_panics_or_does_not_call_its_argument_harms_no_pool() {
    let silent =
        Pools::builder().pool("quiet", PoolConfig::new(1)).context(|| |_: &mut dyn FnMut()| ()).build().unwrap();
    assert_eq!(end_of(silent.submit_to_pool("quiet", || 1).unwrap()).unwrap(), 1);
    let panics = |_: &mut dyn FnMut()| panic!("the hook panics");
    let panics = Pools::builder().pool("panics", PoolConfig::new(1)).context(move || panics).build().unwrap();
    let error = end_of(panics.submit_to_pool("panics", || 1).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the task panicked: the hook panics");
    until("its permit is released", || stats(&panics, "panics").in_flight == 0);
}

#[test]
fn each_worker_calls_the_hooks_of_its_pool_when_it_starts_and_before_it_ends() {
    let (started, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = |counter: &Arc<AtomicUsize>| {
        let counter = counter.clone();
        move || _ = counter.fetch_add(1, Ordering::Relaxed)
    };
    let config = Config::default()
        .pool("hooks", PoolConfig::new(3).keep_alive(Duration::from_millis(5)))
        .pool("plain", PoolConfig::new(1));
    // Each is called twice.
    let pools = Pools::builder()
        .on_worker_start("hooks", count(&started))
        .on_worker_start("hooks", count(&started))
        .on_worker_stop("hooks", count(&stopped))
        .config(config)
        .on_worker_stop("hooks", count(&stopped))
        .build()
        .unwrap();
    end_of(pools.submit_to_pool("plain", || ()).unwrap()).unwrap();
    assert_eq!(started.load(Ordering::Relaxed), 0);
    hold(&pools, "hooks", 3).into_iter().for_each(Held::release);
    until("all have ended", || stopped.load(Ordering::Relaxed) == 6);
    assert_eq!(started.load(Ordering::Relaxed), 6);
}

#[test]
fn a_hook_for_a_pool_that_does_not_exist_is_an_error() {
    let error = Pools::builder().on_worker_start("thumbnail", || ()).build().unwrap_err();
    assert!(std::error::Error::source(&error).is_none(), "its text shows the cause");
    assert!(matches!(&error, BuildError::UnknownPool(unknown) if unknown.name().as_str() == "thumbnail"), "{error}");
}

#[test]
fn the_stack_of_a_worker_is_as_large_as_the_pool_says() {
    /// Takes more than a kilobyte of the stack at each level.
    fn recurse(depth: u32) -> u64 {
        let filled = std::hint::black_box([u64::from(depth); 128]);
        if depth == 0 { filled[0] } else { recurse(depth - 1) + filled[127] }
    }
    let pools = Pools::builder().pool("deep", PoolConfig::new(1).stack_size(64 << 20)).build().unwrap();
    // About eight megabytes without optimisation; a thread has two.
    assert_eq!(end_of(pools.submit_to_pool("deep", || recurse(7_000)).unwrap()).unwrap(), 7_000 * 7_001 / 2);
}
