//! Load tools for the bench in `tests/load`.

mod arguments;
mod fleet;
mod memory;
mod tunnel;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments::Arguments { tool: arguments::Tool::IdleTunnels(options) } = arguments::Arguments::parse();
    match fleet::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            arguments::complain(&error);
            ExitCode::FAILURE
        }
    }
}
