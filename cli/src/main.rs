//! The `latchkey` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    latchkey::app::main(std::env::args_os())
}
