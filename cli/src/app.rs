//! The command line; the only module that knows every command.

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// Gives instances behind NAT a public https address, with keys that never leave them.
#[derive(Debug, Parser)]
#[command(name = "latchkey", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {}

/// The whole program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // A second call finds the provider in place.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::try_parse_from(args) {
        Ok(cli) => match cli.command {},
        Err(told) => {
            let _ = told.print();
            ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2))
        }
    }
}
