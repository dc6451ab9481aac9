//! The operator's binary: everything is in the library.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    latchkey_operator::app::main(latchkey_operator::settings::Settings::parse())
}
