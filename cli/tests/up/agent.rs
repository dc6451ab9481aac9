//! The agent's program as a process of its own: this test binary, told to be `latchkey-agent`.

use std::{
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

const ARGUMENTS: &str = "LATCHKEY_TEST_AGENT";

/// Not a test by itself: [`Agent::start`] runs it in a process of its own.
#[test]
fn as_a_process() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let arguments = std::iter::once("latchkey-agent").chain(arguments.lines()).map(Into::into);
    let code = latchkey_agent::app::main(arguments);
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
}

/// A running agent.
pub struct Agent(Child);

impl Agent {
    pub fn start(bundle: &Path, state: &Path, target: &str) -> Self {
        let arguments =
            ["--join", bundle.to_str().unwrap(), "--state", state.to_str().unwrap(), "--target", target];
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "agent::as_a_process", "--nocapture"])
            .env_clear()
            .env(ARGUMENTS, arguments.join("\n"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
