//! `latchkey completions`: what a shell needs to complete our commands and options.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output;

const EXAMPLES: &str = "\
Examples:
  For bash, in this shell and in later ones:
    latchkey completions bash > ~/.local/share/bash-completion/completions/latchkey

  For zsh, into a folder of $fpath:
    latchkey completions zsh > ~/.zfunc/_latchkey

  For fish:
    latchkey completions fish > ~/.config/fish/completions/latchkey.fish";

/// Which shell.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// The command.
pub fn run(args: &CompletionsArgs, mut program: Command) -> ExitCode {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, name, &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
