//! `latchkey status`: what a running `latchkey up` knows.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};

use crate::{
    board::Board,
    control::{AskError, Where, ask},
    output::{fail, print},
    state_place::state_folder,
};

const EXAMPLES: &str = "\
Examples:
  What the `latchkey up` of a folder serves:
    latchkey status examples/first-minute

  In a script: wait until everything is ready (exit code 0; 3 while something is not):
    until latchkey status examples/first-minute > /dev/null; do sleep 1; done

  The fingerprints of all certificates:
    latchkey status examples/first-minute -o json | jq -r '.instances[].status.certificate.fingerprintSha256'";

/// Show what a running `latchkey up` serves.
///
/// Exit code 0: everything is ready. 3: something is not. 1: nothing runs there.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// The folder that `latchkey up` was given
    #[arg(value_name = "FOLDER", default_value = ".", conflicts_with = "admin")]
    pub folder: PathBuf,
    /// The state folder, where `latchkey up` was told another one
    #[arg(long, value_name = "DIR", env = "LATCHKEY_UP_STATE", conflicts_with = "admin")]
    pub state: Option<PathBuf>,
    /// Ask the admin address of `latchkey up --admin` instead
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// How the answer is written
    #[arg(long, short, value_enum, value_name = "FORM", default_value = "table")]
    pub output: StatusForm,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusForm {
    /// For people
    Table,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
}

/// Asks and prints.
pub fn run(args: &StatusArgs) -> ExitCode {
    let place = match args.admin {
        Some(address) => Where::Admin(address),
        None => match state_folder(&args.folder, args.state.as_deref()) {
            Ok(folder) => Where::State(folder),
            Err(problem) => return fail(&problem),
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let board = match runtime.map(|runtime| runtime.block_on(ask(&place))) {
        Ok(Ok(board)) => board,
        Ok(Err(error)) => return fail(&explain(&error, args)),
        Err(error) => return fail(&error.to_string()),
    };
    let text = match written(&board, args.output) {
        Ok(text) => text,
        Err(problem) => return fail(&problem),
    };
    let printed = print(&text);
    if printed == ExitCode::SUCCESS && !board.all_ready() { ExitCode::from(3) } else { printed }
}

fn explain(error: &AskError, args: &StatusArgs) -> String {
    match (error, args.admin) {
        (AskError::NobodyThere(_), None) => format!(
            "{error}; start it with: latchkey up {} (if it runs with --state DIR, say that here, too)",
            args.folder.display()
        ),
        (AskError::NobodyThere(_), Some(address)) => {
            format!("{error}; start it with: latchkey up FOLDER --admin {address}")
        }
        (AskError::Strange(_), _) => error.to_string(),
    }
}

fn written(board: &Board, form: StatusForm) -> Result<String, String> {
    match form {
        StatusForm::Table => Ok(board.table(0)),
        StatusForm::Json => serde_json::to_string_pretty(board)
            .map(|text| text + "\n")
            .map_err(|error| format!("the answer cannot be written as JSON: {error}")),
        StatusForm::Yaml => serde_yaml::to_string(board)
            .map_err(|error| format!("the answer cannot be written as YAML: {error}")),
    }
}
