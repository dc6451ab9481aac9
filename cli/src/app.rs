//! The command line; the only module that knows every command.

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{completions, doctor, fingerprint, join, manual, plan_command, status, up, version_compare};

const EXAMPLES: &str = "\
Examples:
  A page in your browser, through a proxy and an agent on this machine:
    latchkey up examples/first-minute

  Would a change of the manifests cut somebody off?
    latchkey plan -f manifests/ --against deployed/

  What is wrong here?
    latchkey doctor --domain ui.example.com

Every command has more: latchkey doctor --help";

/// Gives instances behind NAT a public https address, with keys that never leave them.
#[derive(Debug, Parser)]
#[command(name = "latchkey", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Up(Box<up::UpArgs>),
    Plan(plan_command::PlanArgs),
    Join(join::JoinArgs),
    Status(status::StatusArgs),
    /// Look at everything around an installation: DNS, ports, clock, certificates, limits
    Doctor(doctor::DoctorArgs),
    /// Show which certificate visitors of a URL are shown, and compare it
    Fingerprint(fingerprint::FingerprintArgs),
    /// Tools about versions of products
    Version(version_compare::VersionArgs),
    /// Print what a shell needs to complete commands and options
    Completions(completions::CompletionsArgs),
    /// Write man pages, one for each command
    Manual(manual::ManualArgs),
}

/// The whole program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // A second call finds the provider in place.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::try_parse_from(args) {
        Ok(cli) => match &cli.command {
            Command::Up(args) => up::run(args),
            Command::Plan(args) => plan_command::run(args),
            Command::Join(args) => join::run(args),
            Command::Status(args) => status::run(args),
            Command::Doctor(args) => doctor::run(args),
            Command::Fingerprint(args) => fingerprint::run(args),
            Command::Version(args) => version_compare::run(args),
            Command::Completions(args) => completions::run(args, Cli::command()),
            Command::Manual(args) => manual::run(args, Cli::command()),
        },
        Err(told) => {
            let _ = told.print();
            // A wrong command line is an error like others: 2 means something else (`plan`: there are changes).
            ExitCode::from(u8::from(told.use_stderr()))
        }
    }
}
