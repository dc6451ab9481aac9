//! A proxy inside a process: what the binary runs, and what others embed. Signals, settings and logs are the
//! caller's; tables, keys and listeners are handed in.

use std::{
    io,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::unix::AsyncFd,
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    door::{ApiDesk, Door, Parts as DoorParts},
    drain::{Entrance, drain},
    fernet_keys::{FernetKeyRing, WATCH_EVERY},
    metrics::Metrics,
    routes::{Live as LiveTable, LiveRoutes, RouteSource},
    session_api::{
        ApiTlsError, Desk, DeskParts, Enrolment, NoEnrolment, NoReports, Report, Reports, SessionApiSettings,
        TokenTerms,
    },
    settings::Limits,
    tunnels::{data_threads::DataThreads, enforce::enforce, registry::Registry},
    visitor::accept::accept_all,
};

/// What a proxy is made of.
pub struct ProxyParts {
    /// The routes, as somebody publishes them; none for a drop-in server that serves whatever valid tokens name.
    pub table: Option<Arc<LiveTable>>,
    /// The installation's domain; without it, the table's.
    pub domain: Option<String>,
    /// What seals and opens tokens. A key file is watched from now on.
    pub keys: Arc<FernetKeyRing>,
    /// The session API, which only a proxy with a table has.
    pub api: ApiParts,
    /// Every limit.
    pub limits: Limits,
    /// Threads that move bytes; they end with the process.
    pub data_threads: usize,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// What the session API is made of.
pub struct ApiParts {
    /// Folder of its certificate (`tls.crt`, `tls.key`, `ca.crt`); made when it is empty.
    pub tls: PathBuf,
    /// Where agents are told to open their tunnel; without it, where they asked.
    pub tunnel_address: Option<String>,
    /// Who registers keys.
    pub enrolment: Arc<dyn Enrolment>,
    /// Who else hears what agents report.
    pub reports: Arc<dyn Reports>,
}

impl ApiParts {
    /// A session API that registers no keys and tells nobody.
    pub fn new(tls: PathBuf) -> Self {
        Self { tls, tunnel_address: None, enrolment: Arc::new(NoEnrolment), reports: Arc::new(NoReports) }
    }
}

impl std::fmt::Debug for ProxyParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyParts").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ApiParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiParts").field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The session API cannot have its certificate.
    #[error(transparent)]
    ApiTls(#[from] ApiTlsError),
    /// A thread could not be made.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Asks the system for as many file descriptors as this process may have.
pub fn take_all_descriptors() -> Option<u64> {
    byte_relay::descriptors::take_all()
}

/// An open tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTunnel {
    /// The instance, `namespace/name`; a hostname where there is no table.
    pub instance: Arc<str>,
    /// Since when.
    pub since: SystemTime,
    /// The product's version that its agent reported with this session.
    pub version: Option<String>,
    /// The agent's own version; none for stock clients.
    pub agent_version: Option<String>,
    /// The protocol version it speaks.
    pub protocol_version: u8,
}

/// A proxy that runs. Dropping it stops it at once, [`Proxy::drain`] in peace.
#[derive(Debug)]
pub struct Proxy {
    door: Arc<Door>,
    front: Handle,
    entrances: Vec<Entrance>,
    _tasks: Vec<Task>,
}

impl Proxy {
    /// Starts everything but the listeners: see [`Proxy::listen`]. What does not move bytes runs on `control`.
    pub fn start(parts: ProxyParts, control: &Handle) -> Result<Self, StartError> {
        // Nothing of rustls works without it; a second call changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ProxyParts { table, domain, keys, api, limits, data_threads, metrics } = parts;
        let domain = domain.map(|domain| domain.trim_end_matches('.').to_ascii_lowercase());
        let threads = DataThreads::start(data_threads)?;
        let front = threads.front().ok_or_else(|| io::Error::other("there is no data thread"))?;
        let registry = Arc::new(Registry::default());
        let desk = match &table {
            Some(table) => Some(open_desk(api, domain.clone(), table, &keys, &metrics, &registry, control)?),
            None => None,
        };
        let mut tasks = vec![Task(control.spawn(keys.clone().watch(WATCH_EVERY, metrics.clone())))];
        let limits = limits.with_budget();
        let routes = table.as_ref().map(LiveTable::subscribe);
        let parts = DoorParts { table, domain, registry, keys, threads, limits, metrics, api: desk };
        let door = Arc::new(Door::new(parts));
        if let Some(routes) = routes {
            tasks.push(Task(control.spawn(apply_changes(door.clone(), routes))));
        }
        tasks.push(Task(control.spawn(forget_idle(door.clone()))));
        Ok(Self { door, front, entrances: Vec::new(), _tasks: tasks })
    }

    /// Begins to accept on a listener (see [`crate::listen`]), on the thread that accepts.
    #[expect(
        deprecated,
        reason = "its successor needs unsafe code; a TcpListener keeps its descriptor, as both ask"
    )]
    pub fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        let _reactor = self.front.enter();
        let listener = Arc::new(AsyncFd::new(listener)?);
        let task = self.front.spawn(accept_all(self.door.clone(), listener.clone()));
        self.entrances.push(Entrance { listener, task: task.abort_handle() });
        Ok(())
    }

    /// What connections see: the table, the registry, the limits.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// Every tunnel that is open now.
    pub fn tunnels(&self) -> Vec<OpenTunnel> {
        open_tunnels(&self.door.registry)
    }

    /// Ends in peace: agents move, visitors finish, nothing lasts longer than `grace`.
    pub async fn drain(mut self, grace: Duration) {
        drain(self.door.clone(), std::mem::take(&mut self.entrances), grace).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.entrances.iter().for_each(|entrance| entrance.task.abort());
    }
}

fn open_tunnels(registry: &Registry) -> Vec<OpenTunnel> {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut open = Vec::new();
    for instance in registry.all() {
        for live in instance.live().into_iter().filter(|live| !live.tunnel.is_closed()) {
            let claims = live.session.claims.as_ref();
            open.push(OpenTunnel {
                instance: instance.name.clone(),
                since: live.session.opened,
                version: claims.and_then(|claims| said(&claims.version)),
                agent_version: claims.and_then(|claims| said(&claims.agent)),
                protocol_version: live.session.protocol.number(),
            });
        }
    }
    open
}

/// A task that goes with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        AbortHandle::abort(&self.0.abort_handle());
    }
}

/// The session API runs apart from the threads that move bytes.
fn open_desk(
    api: ApiParts,
    domain: Option<String>,
    table: &Arc<LiveTable>,
    keys: &Arc<FernetKeyRing>,
    metrics: &Arc<Metrics>,
    registry: &Arc<Registry>,
    control: &Handle,
) -> Result<Box<dyn ApiDesk>, ApiTlsError> {
    let ApiParts { tls, tunnel_address, enrolment, reports } = api;
    let terms = TokenTerms { server: tunnel_address, ..TokenTerms::default() };
    let table = table.clone();
    let parts = DeskParts {
        settings: SessionApiSettings { terms, ..SessionApiSettings::default() },
        domain,
        table: Arc::new(move || table.current()),
        keys: keys.clone(),
        metrics: metrics.clone(),
        reports: Arc::new(Both(registry.clone(), reports)),
        enrolment,
    };
    Ok(Box::new(Desk::open(parts, Some(&tls), control.clone())?))
}

/// The registry hears first: by the time anybody else knows of a version, visitors are judged by it.
struct Both(Arc<Registry>, Arc<dyn Reports>);

impl Reports for Both {
    fn reported(&self, report: Report) {
        self.0.reported(report.clone());
        self.1.reported(report);
    }
}

/// Looks over every open tunnel whenever the table changes. The order is a promise (see [`LiveTable::enforced`]): the
/// table is in force, then tunnels that it revokes are cut, then whoever waits for that hears of it.
async fn apply_changes(door: Arc<Door>, mut routes: LiveRoutes) {
    loop {
        routes.changed().await;
        // Before the table: what is looked at may be newer than its number says, never older.
        let publication = routes.live().publications();
        let table = routes.current();
        enforce(&door, &table).await;
        routes.live().set_enforced(publication);
    }
}

async fn forget_idle(door: Arc<Door>) {
    loop {
        tokio::time::sleep(Duration::from_mins(1)).await;
        door.registry.forget_idle(door.limits.held_lately().max(Duration::from_mins(10)), Instant::now());
    }
}
