//! Counts a process's system calls and wake-ups with `perf stat`, where it is installed and allowed.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::harness::Column;

const EVENTS: [(&str, Column); 4] = [
    ("syscalls:sys_enter_futex", Column { name: "futex", unit: "each" }),
    ("syscalls:sys_enter_epoll_wait", Column { name: "epoll_wait", unit: "each" }),
    // Sockets are written to with `send` and `writev`, so these are the writes that wake a runtime's event loop.
    ("syscalls:sys_enter_write", Column { name: "write to an eventfd", unit: "each" }),
    ("sched:sched_wakeup", Column { name: "threads woken", unit: "each" }),
];

pub const COLUMNS: [Column; EVENTS.len()] = {
    let [(_, a), (_, b), (_, c), (_, d)] = EVENTS;
    [a, b, c, d]
};

/// How often each event of [`COLUMNS`] happened in a process while `period` ran, if `perf` can count them.
pub fn count<T>(process: u32, period: impl FnOnce() -> T) -> Option<([f64; COLUMNS.len()], T)> {
    // perf counts from the start of the command after `--` to its end. `cat` repeats a line when it has started, and
    // ends with its input.
    let mut perf = Command::new("perf")
        .env("LC_ALL", "C")
        .args(["stat", "-x,", "-e", &EVENTS.map(|(event, _)| event).join(",")])
        .args(["-p", &process.to_string(), "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = perf.stdin.take().expect("its input is piped");
    // An error of `write_all` means that perf has ended; then there is nothing to read either.
    let _ = input.write_all(b"\n");
    let started = perf.stdout.as_mut().is_some_and(|output| output.read_exact(&mut [0]).is_ok());
    let counted = started.then(period);
    drop(input);
    let output = perf.wait_with_output().ok()?;
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    let counts = EVENTS.map(|(event, _)| report.lines().find_map(|line| value(line, event)).unwrap_or(f64::NAN));
    Some((counts, counted?))
}

/// The value of an event, if this line of perf's report is about it: `VALUE,UNIT,EVENT,…`.
fn value(line: &str, event: &str) -> Option<f64> {
    let mut fields = line.split(',');
    let value = fields.next()?;
    // "<not counted>" means that it never happened.
    (fields.nth(1)? == event).then(|| value.parse().unwrap_or(if value == "<not counted>" { 0.0 } else { f64::NAN }))
}
