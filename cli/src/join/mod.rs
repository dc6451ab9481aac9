//! `latchkey join`: a bundle with which an agent joins an instance.

pub mod tokens;

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use board::Selection;
use clap::Args;
use latchkey_agent::{state_folder::StateFolder, target::split_host_port};
use route_table::InstanceId;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    control::{Where, ask},
    output::{complain, fail},
    state_place::{CA_CERTIFICATE, CA_FOLDER, Record, state_folder},
};
use tokens::JoinTokens;

const EXAMPLES: &str = "\
Examples:
  A bundle for an agent of homes/lake-house, while `latchkey up homes/` runs or before it runs again:
    latchkey join homes/lake-house homes/ -o lake-house.json
    latchkey-agent --join lake-house.json --state agent-state --target 127.0.0.1:8123

  For an agent on another machine, which reaches this one under a name:
    latchkey join homes/lake-house homes/ --server tunnel.example.com:8443 -o lake-house.json

  Over a secure channel, without a file:
    latchkey join homes/lake-house homes/ -o - | ssh lake-house 'umask 077; cat >bundle.json'";

/// The longest time a token may wait to be used.
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// Make a bundle with which an agent joins an instance.
///
/// The bundle names the server, pins its CA and holds a token that registers one agent's key, once. Whoever has it can
/// serve the instance's visitors: hand it over as you would a password.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct JoinArgs {
    /// Which instance
    #[arg(value_name = "NAMESPACE/NAME")]
    pub instance: InstanceId,
    /// The folder that `latchkey up` was given
    #[arg(value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,
    /// The state folder, where `latchkey up` was told another one
    #[arg(long, value_name = "DIR", env = "LATCHKEY_UP_STATE")]
    pub state: Option<PathBuf>,
    /// The file to write (mode 0600); `-` for standard output [default: NAMESPACE-NAME.join.json]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How long the token may wait to be used, such as 30m, 24h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    pub valid: Duration,
    /// How the agent reaches `latchkey up` [default: the address it listens on]
    #[arg(long, value_name = "HOST:PORT", value_parser = server)]
    pub server: Option<String>,
}

fn server(text: &str) -> Result<String, String> {
    split_host_port(text).map(|_| text.to_owned())
}

/// Reads `90s`, `30m`, `24h` and `7d`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: write it like 30m, 24h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    let time = Duration::from_secs(number.checked_mul(seconds).ok_or_else(wrong)?);
    if time.is_zero() || time > LONGEST {
        return Err(format!("`{text}` is not possible: a token waits between a second and 30 days"));
    }
    Ok(time)
}

/// As `latchkey-agent --join` reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'a> {
    server: &'a str,
    server_name: &'a str,
    ca: &'a str,
    join_token: &'a str,
    instance: &'a str,
}

/// Makes the bundle.
pub fn run(args: &JoinArgs) -> ExitCode {
    match make(args) {
        Ok(Some(path)) => {
            complain(&format!(
                "wrote {} for {}: it is as good as a password, once. Next, beside the instance: \
                 latchkey-agent --join {} --target HOST:PORT",
                path.display(),
                args.instance,
                path.display()
            ));
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(problem) => fail(&problem),
    }
}

/// The file written; none for standard output.
fn make(args: &JoinArgs) -> Result<Option<PathBuf>, String> {
    let place = state_folder(&args.folder, args.state.as_deref())?;
    let state = StateFolder::existing(&place);
    let never = || {
        format!(
            "`latchkey up` has never run with the state folder {}: start it first (latchkey up {}), it makes the CA that \
             the bundle pins",
            place.display(),
            args.folder.display()
        )
    };
    let record = Record::read(&state)?.ok_or_else(never)?;
    let ca = StateFolder::existing(&place.join(CA_FOLDER)).read(CA_CERTIFICATE);
    let ca = ca.map_err(|error| error.to_string())?.ok_or_else(never)?;
    let server = args.server.clone().or_else(|| record.server.clone()).ok_or(
        "`latchkey up` listens on every address of this machine: say with --server HOST:PORT how the agent reaches it",
    )?;
    known_while_running(&place, &args.instance)?;
    let output = args.output.clone().unwrap_or_else(|| {
        PathBuf::from(format!("{}.join.json", args.instance.as_str().replacen('/', "-", 1)))
    });
    let to_stdout = output.as_os_str() == "-";
    // Before the token is made: one that cannot be written down would be lost.
    let file = if to_stdout { None } else { Some(new_file(&output)?) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let token = JoinTokens::open(&place)
        .and_then(|tokens| tokens.make(&args.instance, seconds(now + args.valid), seconds(now)))
        .map_err(|error| {
            if !to_stdout {
                let _ = std::fs::remove_file(&output);
            }
            error.to_string()
        })?;
    let bundle = Bundle {
        server: &server,
        server_name: &record.server_name,
        ca: &ca,
        join_token: &token,
        instance: args.instance.as_str(),
    };
    let text = serde_json::to_string_pretty(&bundle).map_err(|error| error.to_string())?;
    let text = Zeroizing::new(text + "\n");
    let written = match file {
        Some(mut file) => file.write_all(text.as_bytes()).and_then(|()| file.sync_all()),
        None => io::stdout().write_all(text.as_bytes()),
    };
    written.map_err(|error| format!("{}: {error}", output.display()))?;
    Ok((!to_stdout).then_some(output))
}

/// A file that nobody else can read and that is not there yet: a bundle never lands in a file of others.
fn new_file(path: &Path) -> Result<std::fs::File, String> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
        let advice = if error.kind() == io::ErrorKind::AlreadyExists {
            "remove it, or name another file with -o"
        } else {
            "name another file with -o"
        };
        format!("{}: {error}; {advice}", path.display())
    })
}

/// Where `up` runs, it knows which instances there are; a typing mistake is told now and not when an agent comes.
fn known_while_running(state: &Path, instance: &InstanceId) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let Ok(board) = runtime.block_on(ask(&Where::State(state.to_owned()), &Selection::default())) else {
        return Ok(());
    };
    if board.instances.iter().any(|row| row.instance == instance.as_str()) {
        return Ok(());
    }
    let known: Vec<&str> = board.instances.iter().map(|row| row.instance.as_str()).take(10).collect();
    Err(format!("there is no instance {instance}; `latchkey up` knows of {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn times_are_read_and_bounded() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "24", "h", "0h", "31d", "1.5h", "-1h", "99999999999999999999d", "1 h", "1w"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_first_run_there_is_nothing_to_join() {
        let dir = tempfile::tempdir().unwrap();
        let args = |output: Option<PathBuf>| JoinArgs {
            instance: "homes/lake".parse().unwrap(),
            folder: PathBuf::from("homes"),
            state: Some(dir.path().to_owned()),
            output,
            valid: Duration::from_mins(1),
            server: None,
        };
        assert!(make(&args(None)).unwrap_err().contains("start it first (latchkey up homes)"));

        let state = StateFolder::open(dir.path()).unwrap();
        Record { server: None, server_name: "connect.localhost".to_owned() }.write(&state).unwrap();
        StateFolder::open(&dir.path().join(CA_FOLDER)).unwrap().write(CA_CERTIFICATE, "PEM").unwrap();
        assert!(make(&args(None)).unwrap_err().contains("--server"));

        let output = dir.path().join("bundle.json");
        let with_server = || JoinArgs { server: Some("h:1".to_owned()), ..args(Some(output.clone())) };
        assert_eq!(make(&with_server()), Ok(Some(output.clone())));
        assert_eq!(std::fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o600);
        let bundle = latchkey_agent::session::join::Bundle::read(&output).unwrap();
        assert_eq!((bundle.server.as_str(), bundle.server_name.as_str()), ("h:1", "connect.localhost"));
        assert!(bundle.join_token.is_some());
        assert!(make(&with_server()).unwrap_err().contains("remove it"), "nothing is overwritten");
    }
}
