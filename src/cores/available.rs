//! The number of cores for the workers of all pools.

use std::thread;

use crate::config::Cores;

/// The number of cores from the settings, or the number that the system allows the calling thread now.
///
/// The standard library reads the thread's CPU affinity and, on Linux, the quota of its cgroup at each call, which
/// takes some system calls. Linux keeps an affinity for each thread. A new thread has that of its parent, and `taskset
/// -a -p` changes that of all threads of a process. So this number means something for the process only on a thread
/// that the application has not pinned.
pub(crate) fn available(cores: Cores) -> usize {
    match cores {
        Cores::Count(count) => count,
        Cores::Auto => thread::available_parallelism().map_or(1, usize::from),
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_settings_decide_if_they_name_a_number() {
        assert_eq!(available(Cores::Count(7)), 7);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_number_follows_the_affinity_of_a_thread_that_runs() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

        // Affinity belongs to a thread, so this one's does not change those of other tests.
        let counts = thread::spawn(|| {
            let all = sched_getaffinity(None).expect("it can be read");
            let first = (0..CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).expect("this runs on a core");
            let mut one = CpuSet::new();
            one.set(first);
            let before = available(Cores::Auto);
            let [alone, after] = [one, all].map(|cpus| {
                sched_setaffinity(None, &cpus).expect("it is a part of what is allowed");
                available(Cores::Auto)
            });
            (before, alone, after)
        });
        let (before, alone, after) = counts.join().expect("it does not panic");
        assert_eq!((alone, after), (1, before));
    }
}
