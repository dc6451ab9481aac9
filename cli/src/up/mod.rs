//! `latchkey up`: the whole system in one process, from a folder of manifests.
//!
//! ```text
//! observe   the folder, tunnels, reports, new keys      observe, facts, enrolment
//! plan      what follows from it                        planner
//! publish   routes to the proxy in this process         publish, network
//! plan      again, now that they are in force
//! show      statuses; agents of this process follow     screen, agents, page
//! ```
//!
//! `running` takes the steps in order.

pub mod agents;
pub mod enrolment;
pub mod facts;
pub mod network;
pub mod observe;
pub mod page;
pub mod publish;
mod running;
pub mod screen;
mod signals;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use manifest_folder::{StateError, StateFolder};
use route_table::HostName;
use tokio::runtime::Builder;

use crate::{output::fail, state_place::state_folder};
use network::open_ports;
use running::Running;
use screen::{Form, Screen};
use signals::Signals;

const EXAMPLES: &str = "\
Examples:
  The first minute: a page in your browser, with nothing else installed:
    latchkey up examples/first-minute

  A folder of your own; instances with the annotation latchkey.dev/target get their agent in this process:
    latchkey up homes/ --listen 127.0.0.1:8443

  For agents on other machines (make their bundles with `latchkey join`), with metrics:
    latchkey up homes/ --listen '[::]:8443' --domain ui.example.com --admin 127.0.0.1:9100

  In a script:
    latchkey up homes/ -o json | jq -c 'select(.event == \"instance\") | [.instance, .status.url]'";

/// Run everything on this machine from a folder of manifests: proxy, planner, and agents for local targets.
///
/// Manifests are read again when they change; one that is invalid is reported, and what was in force before goes on.
/// Custom domains wait for proof for ever here, since nobody asks DNS for it: see --trust-domains.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct UpArgs {
    /// Folder of manifests (*.yaml, *.yml, *.json)
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Where visitors and agents arrive; may be given several times
    #[arg(
        long,
        value_name = "ADDR",
        env = "LATCHKEY_LISTEN",
        value_delimiter = ',',
        default_value = "127.0.0.1:8443"
    )]
    pub listen: Vec<SocketAddr>,
    /// Folder for keys, CA and what else must survive a restart [default: one of its own below
    /// ~/.local/state/latchkey]
    #[arg(long, value_name = "DIR", env = "LATCHKEY_UP_STATE")]
    pub state: Option<PathBuf>,
    /// The domain, where the folder has no Installation that names one [default: localhost]
    #[arg(long, value_name = "NAME", env = "LATCHKEY_DOMAIN")]
    pub domain: Option<HostName>,
    /// Where /status, /livez, /readyz, /metrics and /tunnels are served; not for the public
    #[arg(long, value_name = "ADDR", env = "LATCHKEY_ADMIN")]
    pub admin: Option<SocketAddr>,
    /// Serve custom domains without DNS proof: only where nobody else writes into the folder, such as on a laptop
    #[arg(long)]
    pub trust_domains: bool,
    /// What is logged: error, warn, info, debug, or rules such as info,hyper=warn
    #[arg(long, value_name = "FILTER", env = "LATCHKEY_LOG", default_value = "warn")]
    pub log: String,
    /// How it shows what it serves [default: table on a terminal, else plain]
    #[arg(long, short, value_enum, value_name = "FORM")]
    pub output: Option<Form>,
}

/// Runs until a signal ends it.
pub fn run(args: &UpArgs) -> ExitCode {
    let screen = Screen::new(args.output.unwrap_or_else(Form::of_terminal));
    if let Err(problem) = screen::start_log(&args.log, &screen) {
        return fail(&problem);
    }
    // Each visitor takes a few descriptors here.
    let _ = latchkey_proxy::proxy::take_all_descriptors();
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let ended = runtime.block_on(up(args, &screen));
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended.unwrap_or_else(|problem| fail(&problem))
}

async fn up(args: &UpArgs, screen: &Screen) -> Result<ExitCode, String> {
    // Before anything is slow: Ctrl-C must not kill what others rely on.
    let mut signals = Signals::listen().map_err(|error| error.to_string())?;
    let place = state_folder(&args.folder, args.state.as_deref())?;
    let own = StateFolder::open(&place).map_err(|error| in_use(&error))?;
    let listeners = open_ports(&args.listen)?;
    let mut running = Running::start(args, screen.clone(), &place, own, listeners).await?;
    loop {
        running.step().await?;
        tokio::select! {
            () = running.news() => {}
            () = signals.told() => break,
        }
    }
    tokio::select! {
        () = running.end() => Ok(ExitCode::SUCCESS),
        () = signals.told() => {
            screen.aside("told twice: ending at once\n");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Two would undo each other's work; who the other is, only this place knows.
fn in_use(error: &StateError) -> String {
    match error {
        StateError::Busy { path } => format!(
            "another `latchkey up` uses the state folder {}: end it, or name another folder with --state DIR",
            path.display()
        ),
        _ => error.to_string(),
    }
}
