//! `latchkey up`: the whole system in one process, from a folder of manifests.
//!
//! ```text
//! observe   the folder, tunnels, reports, new keys      observe, facts, enrolment
//! plan      what follows from it                        planner
//! publish   routes to the proxy in this process         publish, network
//! plan      again, now that they are in force
//! show      statuses; agents of this process follow     screen, agents, page
//! ```

pub mod agents;
pub mod enrolment;
pub mod facts;
pub mod network;
pub mod observe;
pub mod page;
pub mod publish;
pub mod screen;
mod signals;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use latchkey_agent::{settings::Limits, state_folder::StateFolder};
use latchkey_proxy::{routes::Live, session_api::Heard};
use manifest_folder::{Defaults, StateError};
use planner::{Plan, Subject};
use resources::Timestamp;
use route_table::{HostName, RouteTable, SESSION_LABEL};
use tokio::{
    runtime::Builder,
    sync::{Notify, mpsc, watch},
};

use crate::{
    board::{Board, Row},
    control,
    join::tokens::JoinTokens,
    output::fail,
    state_place::{Record, state_folder},
};
use agents::{Agents, Common};
use enrolment::{NewKey, TokenEnrolment};
use facts::Seen;
use network::{Network, NetworkParts, open_ports};
use observe::Observer;
use publish::Publisher;
use screen::{Form, Screen};
use signals::Signals;

/// Visitors have this long to finish at the end.
const GRACE: Duration = Duration::from_secs(3);
/// How soon a tunnel that came or went is seen.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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
    #[arg(long, value_name = "DIR", env = "LATCHKEY_STATE")]
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
    let own = manifest_folder::StateFolder::open(&place).map_err(|error| in_use(&error))?;
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

/// Everything that runs.
struct Running {
    screen: Screen,
    observer: Observer,
    state: StateFolder,
    live: Arc<Live>,
    publisher: Publisher,
    network: Network,
    agents: Agents,
    agents_folder: PathBuf,
    heard: Arc<Heard>,
    reports: watch::Receiver<u64>,
    seen: Seen,
    keys: mpsc::Receiver<NewKey>,
    news: Arc<Notify>,
    board: watch::Sender<Arc<Board>>,
    domain: HostName,
    next_run: Option<Timestamp>,
    control: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(
        args: &UpArgs,
        screen: Screen,
        place: &std::path::Path,
        own: manifest_folder::StateFolder,
        listeners: Vec<(SocketAddr, std::net::TcpListener)>,
    ) -> Result<Self, String> {
        let addresses: Vec<SocketAddr> = listeners.iter().map(|(address, _)| *address).collect();
        let defaults = Defaults { public_port: addresses.first().map_or(443, SocketAddr::port) };
        let observer =
            Observer::open(&args.folder, own, defaults, args.domain.as_ref(), args.trust_domains).await?;
        let state = StateFolder::open(place).map_err(|error| error.to_string())?;
        let domain = observer.domain().clone();
        let table =
            RouteTable::from_routes(0, Some(domain.clone()), []).map_err(|error| error.to_string())?;
        let live = Live::new(table);
        let (new_keys, keys) = mpsc::channel(16);
        let tokens = JoinTokens::open(place).map_err(|error| error.to_string())?;
        let heard = Arc::new(Heard::default());
        let board = watch::Sender::new(Arc::new(Board {
            folder: args.folder.display().to_string(),
            listen: addresses.iter().map(ToString::to_string).collect(),
            domain: domain.to_string(),
            ..Board::default()
        }));
        let parts = NetworkParts {
            admin: args.admin,
            state: &state,
            live: &live,
            tunnel_address: observer.tunnel_address(),
            enrolment: Arc::new(TokenEnrolment::new(tokens, live.clone(), new_keys)),
            heard: heard.clone(),
            board: board.subscribe(),
        };
        let network = network::start(parts, listeners)?;
        let control = control::listen(place).map_err(|error| {
            format!("{}: {error}; the state folder has to be on a file system with sockets", place.display())
        })?;
        let control = tokio::spawn(control::serve(control, board.subscribe()));
        let news = Arc::new(Notify::new());
        let agents_folder = place.join("agents");
        let common = common(&agents_folder, &network, &domain, &news)?;
        record(&state, &network, &observer, &domain)?;
        let shown = screen.listening(&board.borrow(), &place.display().to_string());
        shown.map_err(|error| format!("standard output: {error}"))?;
        Ok(Self {
            screen,
            state,
            publisher: Publisher::new(live.clone()),
            live,
            network,
            agents: Agents::new(common),
            agents_folder,
            reports: heard.subscribe(),
            heard,
            seen: Seen::default(),
            keys,
            news,
            board,
            domain,
            next_run: None,
            control,
            observer,
        })
    }

    /// Looks, plans, publishes, shows.
    async fn step(&mut self) -> Result<(), String> {
        let now = now();
        if self.observer.domain() != &self.domain {
            self.move_to(self.observer.domain().clone()).await?;
        }
        self.seen.look(&self.network.proxy.tunnels(), now);
        let targets = self.observer.targets();
        let mut keys = BTreeMap::new();
        for id in targets.keys() {
            match self.agents.key(id) {
                Ok(key) => drop(keys.insert(id.clone(), key)),
                Err(problem) => tracing::error!(instance = %id, %problem, "an agent has no key"),
            }
        }
        self.observer.lend_keys(keys)?;
        let reports = self.seen.reports(&self.heard);
        let plan = self.observer.plan(&reports, self.publisher.applied(), now)?;
        self.tell_events(&plan);
        let published = self.publisher.publish(&plan, &self.domain);
        let mut problems = self.observer.problems();
        let plan = match published {
            Ok(true) => {
                // Statuses claim only what is in force; now it is.
                let plan = self.observer.plan(&reports, self.publisher.applied(), now)?;
                self.tell_events(&plan);
                plan
            }
            Ok(false) => plan,
            Err(error) => {
                problems.push(format!("the last good routes stay in force: {error}"));
                plan
            }
        };
        if let Err(error) = self.observer.save() {
            problems.push(format!("what was decided cannot be kept over a restart: {error}"));
        }
        self.heard.retain(&self.live.current());
        self.seen.retain(|id| plan.instances.contains_key(id));
        self.next_run = plan.next_run;
        let wanted = targets.into_iter().filter_map(|(id, wanted)| {
            let route = plan.routes.get(&id).filter(|route| route.enabled)?;
            Some((id, (wanted, route.clone())))
        });
        self.agents.keep(wanted.collect::<BTreeMap<_, _>>()).await;
        self.show(&plan, problems)
    }

    fn show(&mut self, plan: &Plan, problems: Vec<String>) -> Result<(), String> {
        for problem in self.observer.complaints() {
            self.screen.aside(&problem);
        }
        let instances = plan.instances.iter().map(|(id, status)| Row {
            instance: id.to_string(),
            connected: self.seen.is_connected(id),
            status: (**status).clone(),
            target: self.agents.target(id),
        });
        let board = Arc::new(Board {
            domain: self.domain.to_string(),
            revision: plan.revision,
            instances: instances.collect(),
            problems,
            ..(**self.board.borrow()).clone()
        });
        self.board.send_replace(board.clone());
        self.screen.show(&board).map_err(|error| format!("standard output: {error}"))
    }

    #[expect(clippy::unused_self, reason = "reads as a step of the others")]
    fn tell_events(&self, plan: &Plan) {
        for event in &plan.events {
            let about = match &event.about {
                Subject::Instance(id) => id.to_string(),
                Subject::Block(name) => name.clone(),
            };
            tracing::info!(target: "latchkey::plan", about, reason = %event.reason, message = %event.message, "event");
        }
    }

    /// Returns when there is a reason to plan again.
    async fn news(&mut self) {
        let next_run = self.next_run;
        loop {
            tokio::select! {
                () = self.observer.changed() => return,
                () = self.news.notified() => return,
                Ok(()) = self.reports.changed() => return,
                () = until(next_run) => return,
                Some(NewKey { instance, key, kept }) = self.keys.recv() => {
                    // Nobody waits any more only when the agent has gone.
                    let _ = kept.send(self.observer.enrol(&instance, key));
                    return;
                }
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if self.seen.look(&self.network.proxy.tunnels(), now()) {
                        return;
                    }
                }
            }
        }
    }

    /// The installation has another domain: agents ask under another name.
    async fn move_to(&mut self, domain: HostName) -> Result<(), String> {
        self.agents.end().await;
        let common = common(&self.agents_folder, &self.network, &domain, &self.news)?;
        self.agents = Agents::new(common);
        record(&self.state, &self.network, &self.observer, &domain)?;
        self.domain = domain;
        Ok(())
    }

    /// Ends in peace.
    async fn end(self) {
        let Self { mut agents, network, control, .. } = self;
        control.abort();
        tokio::join!(agents.end(), network.proxy.drain(GRACE));
    }
}

fn common(
    folder: &std::path::Path,
    network: &Network,
    domain: &HostName,
    news: &Arc<Notify>,
) -> Result<Common, String> {
    Ok(Common {
        folder: folder.to_owned(),
        proxy: near(
            network.addresses.first().copied().ok_or("there is no address to listen on: see --listen")?,
        ),
        server_name: session_host(domain),
        ca: network.ca.clone(),
        limits: Limits::from_environment().map_err(|error| error.to_string())?,
        news: news.clone(),
    })
}

/// For `latchkey join`.
fn record(
    state: &StateFolder,
    network: &Network,
    observer: &Observer,
    domain: &HostName,
) -> Result<(), String> {
    let listening = network.addresses.iter().find(|address| !address.ip().is_unspecified());
    let server = observer.tunnel_address().or_else(|| listening.map(ToString::to_string));
    Record { server, server_name: session_host(domain) }.write(state)
}

fn session_host(domain: &HostName) -> String {
    format!("{SESSION_LABEL}.{domain}")
}

/// How this process reaches what listens on an address.
fn near(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

async fn until(time: Option<Timestamp>) {
    let Some(time) = time else { return std::future::pending().await };
    // The clock may be set meanwhile: look at it again now and then. A plan too many does no harm, and none follows
    // another without a breath.
    loop {
        let left = u64::try_from(time.0.saturating_sub(now().0)).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(left.clamp(1, 60))).await;
        if now() >= time {
            return;
        }
    }
}
