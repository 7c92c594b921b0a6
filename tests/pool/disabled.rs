//! Without pools, everything runs where it stands.

use std::thread;
use std::time::Duration;

use tower_offload::Pools;

#[test]
fn disabled_pools_run_every_job_on_the_thread_that_asks() {
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
        assert_eq!(panicked.to_string(), "the job panicked: still an error");
        let batch = pools.batch_executor("inference", 2).unwrap();
        let all = batch.run_all((0..9).map(|number| move || (number, thread::current().id()))).await;
        assert!(all.into_iter().enumerate().all(|(index, result)| result.unwrap() == (index, here)));
    });
    assert_eq!(pools.submit_to_pool("cpu", || thread::current().id()).unwrap().wait().unwrap(), here);
    assert!(pools.is_disabled());
    assert_eq!((pools.stats().len(), pools.names().len()), (0, 0));
}
