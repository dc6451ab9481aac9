//! `latchkey plan`: what a change of manifests would do, and to whom. A pull request of manifests runs it.

pub(crate) mod color;
mod difference;
pub(crate) mod faults;
mod report;
mod sides;
mod table;
mod versions;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::output;
use color::Palette;
pub use faults::show_faults;

/// There are changes: not an error, but something to look at.
const CHANGES: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  What is in a folder, and is it sound?
    latchkey plan -f manifests/

  In a pull request: what changes against the main branch, and who loses access?
    git worktree add /tmp/base origin/main
    latchkey plan -f manifests/ --against /tmp/base/manifests/

  The same with versions as they are in the field, for a machine to read:
    latchkey status manifests/ -o json |
      jq '[.instances[] | select(.status.version) | {(.instance): .status.version.effective}] | add' > versions.json
    latchkey plan -f manifests/ --against /tmp/base/manifests/ --versions versions.json -o json

  What `latchkey up` would do with an edit:
    latchkey plan -f edited/ --state ~/.local/state/latchkey/manifests-0123456789ab

Exit codes: 0 nothing changes, 2 something does, 1 the manifests are invalid or cannot be read.

What cannot be known beforehand:
  Random names come from an installation's secret seed: without --state they are shown as <random>.
  Custom domains are taken as proven by DNS.
  Versions are the declared ones, except those of --versions and, with --state, those reported last.";

/// Show what a change of manifests would do, and who would lose access
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    /// The manifests: a folder (with its subfolders), a file, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FOLDER|FILE|-")]
    pub manifests: PathBuf,
    /// The manifests as they were; without it, everything is new
    #[arg(long, value_name = "FOLDER|FILE")]
    pub against: Option<PathBuf>,
    /// The state folder of `latchkey up`: its names and keys, and its last plan to compare with
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Versions that instances report: `namespace/name: version`, one a line, or JSON
    #[arg(long, value_name = "FILE")]
    pub versions: Option<PathBuf>,
    /// How it is printed
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For machines
    Yaml,
    /// For machines
    Json,
}

/// Runs it.
pub fn run(args: &PlanArgs) -> ExitCode {
    let sides = match sides::read(args) {
        Ok(sides) => sides,
        Err(sides::Refused::Faults(faults)) => {
            show_faults(&faults);
            return ExitCode::FAILURE;
        }
        Err(sides::Refused::Other(told)) => return output::fail(&told),
    };
    let report = report::make(&sides);
    let printed = match args.output {
        Format::Table => Ok(table::print(&report, &Palette::of_stdout())),
        Format::Yaml => serde_yaml::to_string(&report).map_err(|error| error.to_string()),
        Format::Json => {
            serde_json::to_string_pretty(&report).map(|text| text + "\n").map_err(|error| error.to_string())
        }
    };
    match printed.map(|text| output::print(&text)) {
        Ok(ExitCode::SUCCESS) if report.is_empty() => ExitCode::SUCCESS,
        Ok(ExitCode::SUCCESS) => ExitCode::from(CHANGES),
        Ok(failed) => failed,
        Err(told) => output::fail(&told),
    }
}
