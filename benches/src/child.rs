//! Child processes of a scenario: this program again, started to play one part.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ways::Speed;

/// A process that plays a part. It ends with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

/// The processes that this one has started and not dropped, by their numbers.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// The argument that makes this program play a part instead of measuring.
const PART: &str = "--part";

impl Process {
    /// Starts a process for `part`, of the kind `kind`.
    pub fn start(part: &str, kind: &str, speed: Speed) -> Self {
        let program = std::env::current_exe().expect("the system knows this program");
        let mut child = Command::new(program)
            .args([PART, part, kind, &speed.turns_per_micro.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        lock().push(child.id());
        Self { child, output }
    }

    /// The number that the system has given it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the process to end, as a service manager does, and waits until it has.
    pub fn terminate(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.id().try_into().expect("the system gives smaller numbers"));
        nix::sys::signal::kill(id, nix::sys::signal::SIGTERM).expect("it has not ended yet");
        self.child.wait().expect("it was started by this process");
    }

    /// The next number that the process prints.
    pub fn number(&mut self) -> f64 {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("its output can be read");
        line.trim().parse().unwrap_or_else(|_| panic!("a part of a scenario failed; it printed {line:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        lock().retain(|&other| other != self.id());
    }
}

/// The numbers of the processes that this one has started. One that has ended may still be among them.
pub fn running() -> Vec<u32> {
    lock().clone()
}

fn lock() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays a part, by its name and kind, if this process was started for one.
pub fn play(part_of: impl FnOnce(&str, &str, Speed)) -> bool {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [first, part, kind, speed] = arguments.as_slice() else { return false };
    if first != PART {
        return false;
    }
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let turns_per_micro = text(speed).parse().expect("the speed is a number");
    let speed = Speed { turns_per_micro };
    part_of(&text(part), &text(kind), speed);
    true
}

/// Tells a number to the process that started this one.
pub fn tell(number: impl std::fmt::Display) {
    println!("{number}");
    std::io::stdout().flush().expect("the output is a pipe that is read");
}
