//! The operator's binary: everything is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use tikv_jemallocator::Jemalloc;

/// A first list leaves holes behind: with the system's allocator they stay, a third of all memory. How soon this one
/// gives them back is said in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    latchkey_operator::app::main(latchkey_operator::settings::Settings::parse())
}
