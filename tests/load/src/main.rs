//! Load tools for the bench in `tests/load`.

mod agents;
mod arguments;
mod descriptors;
mod fleet;
mod memory;
mod tunnel;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let done = match arguments::Arguments::parse().tool {
        arguments::Tool::IdleTunnels(options) => fleet::run(&options),
        arguments::Tool::Agents(options) => agents::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            arguments::complain(&error);
            ExitCode::FAILURE
        }
    }
}
