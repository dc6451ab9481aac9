//! `latchkey status`: what a running installation knows, `latchkey up` or an operator's.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use board::{Board, MOST_ROWS, Role, Selection};
use clap::{Args, ValueEnum};

use crate::{
    board_text::table,
    control::{AskError, Where, ask},
    output::{fail, print},
    state_place::state_folder,
};

/// Pages that `--all` asks for, at most: one that never ends is no answer.
const MOST_PAGES: usize = 1_000;
/// The exit code where something is not as it should be.
const NOT_READY: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  What the `latchkey up` of a folder serves:
    latchkey status examples/first-minute

  In a script: wait until everything is ready (exit code 0; 3 while something is not):
    until latchkey status examples/first-minute > /dev/null; do sleep 1; done

  The fingerprints of all certificates:
    latchkey status examples/first-minute -o json | jq -r '.instances[].status.certificate.fingerprintSha256'

  An installation in a cluster: its leader, proxies, how far a roll is, and what is not ready:
    kubectl port-forward --namespace=latchkey deployment/latchkey-default-operator 9101 &
    latchkey status --admin 127.0.0.1:9101

  One instance there, ready or not:
    latchkey status --admin 127.0.0.1:9101 --instance homes/lake";

/// Show what a running `latchkey up` serves, or an operator in a cluster.
///
/// Exit code 0: everything is ready. 3: something is not, a roll of the proxies is paused, or an operator was asked that
/// does not lead. 1: nothing runs there.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// The folder that `latchkey up` was given
    #[arg(value_name = "FOLDER", default_value = ".", conflicts_with = "admin")]
    pub folder: PathBuf,
    /// The state folder, where `latchkey up` was told another one
    #[arg(long, value_name = "DIR", env = "LATCHKEY_UP_STATE", conflicts_with = "admin")]
    pub state: Option<PathBuf>,
    /// Ask the admin address of `latchkey up --admin`, or of an operator, instead
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// Show only this instance
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "all")]
    pub instance: Option<String>,
    /// Show every instance of an operator, not only the first that are not ready
    #[arg(long)]
    pub all: bool,
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
    let board = match runtime.map(|runtime| runtime.block_on(gather(&place, args))) {
        Ok(Ok(board)) => board,
        Ok(Err(error)) => return fail(&explain(&error, args)),
        Err(error) => return fail(&error.to_string()),
    };
    // A follower knows of no instance.
    let knows =
        !board.operator.as_ref().is_some_and(|operator| matches!(operator.role, Role::Follower { .. }));
    if let Some(instance) = args.instance.as_ref().filter(|_| knows && board.instances.is_empty()) {
        return fail(&format!(
            "there is no instance {instance}: it is named NAMESPACE/NAME, as in homes/lake"
        ));
    }
    let text = match written(&board, args.output) {
        Ok(text) => text,
        Err(problem) => return fail(&problem),
    };
    let printed = print(&text);
    if printed == ExitCode::SUCCESS && !is_well(&board, args) { ExitCode::from(NOT_READY) } else { printed }
}

/// The board with every row that was asked for: an operator tells them page by page.
async fn gather(place: &Where, args: &StatusArgs) -> Result<Board, AskError> {
    let limit = if args.all { MOST_ROWS } else { Selection::default().limit };
    let mut selection = Selection { instance: args.instance.clone(), all: args.all, after: None, limit };
    let mut board = ask(place, &selection).await?;
    if let Some(instance) = &args.instance {
        board.instances.retain(|row| row.instance == *instance);
    }
    for _ in 0..MOST_PAGES {
        let next = board.operator.as_mut().filter(|_| args.all).and_then(|operator| operator.next.take());
        let Some(next) = next else { break };
        selection.after = Some(next);
        let more = ask(place, &selection).await?;
        let rows = std::mem::take(&mut board.instances);
        board = Board { instances: rows.into_iter().chain(more.instances).collect(), ..more };
    }
    Ok(board)
}

/// Of one instance only that one is asked.
fn is_well(board: &Board, args: &StatusArgs) -> bool {
    match &args.instance {
        Some(_) => !board.instances.is_empty() && board.instances.iter().all(board::Row::is_ready),
        None => board.all_ready(),
    }
}

fn explain(error: &AskError, args: &StatusArgs) -> String {
    match (error, args.admin) {
        (AskError::NobodyThere(_), None) => format!(
            "no `latchkey up` runs for that folder: {error}; start it with: latchkey up {} (if it runs with --state DIR, \
             say that here, too)",
            args.folder.display()
        ),
        (AskError::NobodyThere(_), Some(address)) => format!(
            "{error}; start it with: latchkey up FOLDER --admin {address}, or lead there from an operator: kubectl \
             port-forward POD {}:9101",
            address.port()
        ),
        (AskError::Strange(_), _) => error.to_string(),
    }
}

fn written(board: &Board, form: StatusForm) -> Result<String, String> {
    match form {
        StatusForm::Table => Ok(table(board, 0)),
        StatusForm::Json => serde_json::to_string_pretty(board)
            .map(|text| text + "\n")
            .map_err(|error| format!("the answer cannot be written as JSON: {error}")),
        StatusForm::Yaml => serde_yaml::to_string(board)
            .map_err(|error| format!("the answer cannot be written as YAML: {error}")),
    }
}
