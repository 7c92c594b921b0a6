//! Runs this test program as a child process.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// A child process that runs one test of this program. Dropping the value kills the process.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Runs the test `name`, with `variable` set in its environment.
    pub(crate) fn start(name: &str, variable: &str, stdin: Stdio) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(variable, "1")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits for a line that begins with `word`, and returns the rest.
    pub(crate) fn says(&mut self, word: &str) -> String {
        loop {
            let line = self.lines.next().expect("the process says it before it ends").unwrap();
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        self.signals(&[name]);
    }

    /// Sends these signals one right after the other.
    pub(crate) fn signals(&self, names: &[&str]) {
        let script = format!("for name; do kill -s $name {} || exit 1; done", self.child.id());
        let killed = Command::new("sh").args(["-c", &script, "sh"]).args(names).status().unwrap();
        assert!(killed.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
