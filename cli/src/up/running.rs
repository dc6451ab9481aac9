//! Everything that `up` runs, and one turn of its loop.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use board::{Board, Row};
use latchkey_agent::{settings::Limits, state_folder::StateFolder};
use latchkey_proxy::{routes::Live, session_api::Heard};
use manifest_folder::Defaults;
use planner::{Plan, Subject};
use resources::Timestamp;
use route_table::{HostName, RouteTable, SESSION_LABEL};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

use super::{
    UpArgs,
    agents::{Agents, Common},
    enrolment::{NewKey, TokenEnrolment},
    facts::Seen,
    network::{self, Network, NetworkParts},
    observe::Observer,
    publish::Publisher,
    screen::Screen,
};
use crate::{control, join::tokens::JoinTokens, state_place::Record};

/// Visitors have this long to finish at the end.
const GRACE: Duration = Duration::from_secs(3);
/// How soon a tunnel that came or went is seen.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Everything that runs.
pub(super) struct Running {
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
    control: JoinHandle<()>,
}

impl Running {
    pub(super) async fn start(
        args: &UpArgs,
        screen: Screen,
        place: &Path,
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
    pub(super) async fn step(&mut self) -> Result<(), String> {
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
        let lent = self.observer.lend_keys(keys);
        let reports = self.seen.reports(&self.heard);
        let plan = self.observer.plan(&reports, self.publisher.applied(), now)?;
        self.tell_events(&plan);
        let wanted = targets.into_iter().filter_map(|(id, wanted)| {
            let route = plan.routes.get(&id).filter(|route| route.enabled)?;
            Some((id, (wanted, route.clone())))
        });
        let wanted: BTreeMap<_, _> = wanted.collect();
        self.agents.retain(|id| wanted.contains_key(id));
        let published = self.publisher.publish(&plan, &self.domain);
        let mut problems = self.observer.problems();
        if let Err(error) = lent {
            problems.push(format!("an agent of this process cannot be registered: {error}"));
        }
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
        self.agents.keep(wanted).await;
        self.show(&plan, problems)
    }

    fn show(&mut self, plan: &Plan, problems: Vec<String>) -> Result<(), String> {
        for problem in self.observer.complaints() {
            self.screen.aside(&problem);
        }
        let mut board = (**self.board.borrow()).clone();
        (board.domain, board.problems) = (self.domain.to_string(), problems);
        // Nothing is told that is not in force: after a plan that could not be published, what was told before stays.
        let in_force = self.publisher.applied().revision.unwrap_or_default();
        if let Some(published) = plan.published(in_force) {
            board.revision = plan.revision;
            let rows = published.instances().iter().map(|(id, status)| Row {
                instance: id.to_string(),
                connected: self.seen.is_connected(id),
                status: (**status).clone(),
                target: self.agents.target(id),
            });
            board.instances = rows.collect();
        }
        let board = Arc::new(board);
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
    pub(super) async fn news(&mut self) {
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
    pub(super) async fn end(self) {
        let Self { mut agents, network, control, .. } = self;
        control.abort();
        tokio::join!(agents.end(), network.proxy.drain(GRACE));
    }
}

fn common(folder: &Path, network: &Network, domain: &HostName, news: &Arc<Notify>) -> Result<Common, String> {
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

pub(super) fn now() -> Timestamp {
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
