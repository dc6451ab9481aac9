//! The agent's binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    latchkey_agent::app::main(std::env::args_os())
}
