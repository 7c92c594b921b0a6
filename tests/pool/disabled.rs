//! Disabled pools run each task on the thread that submits it.

use std::thread;
use std::time::Duration;

use tower_offload::Pools;

#[test]
fn a_future_of_disabled_pools_does_not_hold_up_the_runtime_it_needs() {
    let pools = Pools::disabled();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (late, cancelled) = runtime.block_on(async {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let waits = pools.submit_to_pool("cpu", receiver).unwrap();
        assert!(!waits.is_finished());
        sender.send(7).unwrap();
        assert_eq!(waits.await.unwrap().unwrap(), 7);
        let slept = pools.submit_to_pool("cpu", tokio::time::sleep(Duration::from_millis(1))).unwrap();
        slept.await.unwrap();
        let panicked = pools.submit_to_pool("cpu", async { panic!("still an error") }).unwrap();
        assert_eq!(panicked.await.unwrap_err().to_string(), "the task panicked: still an error");
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        pools.submit_to_pool("cpu", receiver).unwrap().cancel();
        tokio::task::yield_now().await;
        (pools.submit_to_pool("cpu", std::future::pending::<()>()).unwrap(), sender.is_closed())
    });
    assert!(cancelled);
    drop(runtime);
    assert_eq!(late.wait().unwrap_err().to_string(), "pool `cpu` gave no answer: the task was cut off");
}

#[test]
fn disabled_pools_run_every_task_on_the_thread_that_submits_it() {
    let pools = Pools::disabled();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let here = thread::current().id();
    runtime.block_on(async {
        assert_eq!(pools.run_in_pool("cpu", || thread::current().id()).await.unwrap(), here);
        let slept = pools.run_in_pool("no such pool", async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            thread::current().id()
        });
        assert_eq!(slept.await.unwrap(), here);
        let panicked = pools.run_in_pool("cpu", || -> u8 { panic!("still an error") }).await.unwrap_err();
        assert_eq!(panicked.to_string(), "the task panicked: still an error");
        let batch = pools.batch_executor("inference", 2).unwrap();
        let all = batch.run_all((0..9).map(|number| move || (number, thread::current().id()))).await;
        assert!(all.into_iter().enumerate().all(|(index, result)| result.unwrap() == (index, here)));
    });
    assert_eq!(pools.submit_to_pool("cpu", || thread::current().id()).unwrap().wait().unwrap(), here);
    assert!(pools.is_disabled());
    assert_eq!((pools.stats().len(), pools.names().len()), (0, 0));
}
