//! Runs a test in a child process, whose limits the test may change.

use std::process::Command;

const CHILD: &str = "TOWER_OFFLOAD_CHILD";

/// In the test process: runs the named test in a child process and checks that it passed. In the child: calls `body`.
pub(crate) fn in_child(test: &str, prepare: impl FnOnce(&mut Command), body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, "1").env_remove("RUST_BACKTRACE");
    prepare(&mut command);
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let complained = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
            assert!(said.contains("1 passed"), "the child ran no test:\n{said}");
        }
        Err(error) => panic!("the child could not be started: {error}"),
    }
}
