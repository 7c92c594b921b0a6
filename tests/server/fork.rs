//! Pools and `fork`: threads do not survive a fork, so the pools start their threads in the child.
#![cfg(unix)]

use std::process::Stdio;

use fork::{Fork, waitpid};
use tower_offload::{Cpu, Pools};

use crate::process::Process;

const CHILD: &str = "TOWER_OFFLOAD_TEST_FORK";

/// Runs in the child process only. Makes pools, forks, and uses the pools in the fork.
#[test]
fn fork_and_use_pools() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let pools = Pools::default();
    match fork::fork().unwrap() {
        Fork::Parent(child) => println!("\nended {}", waitpid(child).unwrap()),
        Fork::Child => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let product = runtime.block_on(pools.run_in_pool(Cpu, || 6 * 7)).unwrap();
            println!("\nproduct {product}");
            std::process::exit(0);
        }
    }
}

#[test]
fn pools_that_were_made_before_a_fork_work_in_the_child_if_it_is_the_first_to_use_them() {
    let mut process = Process::start("fork::fork_and_use_pools", CHILD, Stdio::null());
    assert_eq!(process.says("product"), "42");
    assert_eq!(process.says("ended"), "0");
    assert!(process.wait().success());
}
