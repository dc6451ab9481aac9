//! `latchkey manual`: a man page for each command.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};

use crate::output;

const EXAMPLES: &str = "\
Examples:
  Write the pages, then read one:
    latchkey manual ~/.local/share/man/man1
    man latchkey-version-compare";

/// Where to.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ManualArgs {
    /// Folder for the pages; made if it is not there
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// The command.
pub fn run(args: &ManualArgs, program: Command) -> ExitCode {
    let folder = &args.folder;
    let written = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(program, folder));
    match written {
        Ok(()) => output::print(&format!("the pages are in {}\n", folder.display())),
        Err(error) => output::fail(&format!("{}: {error}", folder.display())),
    }
}
