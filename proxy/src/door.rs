//! What every connection that comes in may need: the table, the registry, the limits.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use route_table::RouteTable;

use crate::{
    fernet_keys::FernetKeyRing,
    metrics::Metrics,
    routes::Live as LiveTable,
    settings::Limits,
    tunnels::{data_threads::DataThreads, registry::Registry},
    visitor::clients::{Client, ClientPermit, Clients, Gauge, Rate, Rates},
};

/// Takes over connections that ask for the session API.
pub trait ApiDesk: Send + Sync + std::fmt::Debug {
    /// A connection, what was read of it already, and its place among those of its address.
    fn serve(
        &self,
        stream: std::net::TcpStream,
        first: Vec<u8>,
        peer: SocketAddr,
        place: Option<ClientPermit>,
    );
}

/// Shared by everything that happens to a connection.
#[derive(Debug)]
pub struct Door {
    /// The routes; none for a drop-in server that serves whatever valid tokens name.
    pub table: Option<Arc<LiveTable>>,
    /// The domain whose `connect.` is the session API, where the settings name one.
    pub domain: Option<String>,
    /// Who holds what.
    pub registry: Arc<Registry>,
    /// Opens and seals tokens.
    pub keys: Arc<FernetKeyRing>,
    /// Where tunnels live.
    pub threads: DataThreads,
    /// Every limit.
    pub limits: Limits,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Addresses and what they do.
    pub clients: Clients,
    /// Connections that have not yet shown what they are, and tunnels being opened.
    pub handshakes: Gauge,
    /// Visitors that wait.
    pub parked: Gauge,
    /// The same by their addresses.
    pub parked_clients: Clients,
    /// The session API, where there is one.
    pub api: Option<Box<dyn ApiDesk>>,
    rates: Mutex<Rates<(usize, Client)>>,
    started: Instant,
    draining: AtomicBool,
}

/// What a door is made of: the public fields of [`Door`].
#[derive(Debug)]
pub struct Parts {
    /// The routes.
    pub table: Option<Arc<LiveTable>>,
    /// The installation's domain in the settings.
    pub domain: Option<String>,
    /// Who holds what.
    pub registry: Arc<Registry>,
    /// Opens and seals tokens.
    pub keys: Arc<FernetKeyRing>,
    /// Where tunnels live.
    pub threads: DataThreads,
    /// Every limit.
    pub limits: Limits,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The session API.
    pub api: Option<Box<dyn ApiDesk>>,
}

impl Door {
    /// Opens for business.
    pub fn new(parts: Parts) -> Self {
        let Parts { table, domain, registry, keys, threads, limits, metrics, api } = parts;
        Self {
            table,
            domain,
            registry,
            keys,
            threads,
            clients: Clients::new(limits.client(), limits.max_clients),
            rates: Mutex::new(Rates::new(limits.max_clients)),
            parked_clients: Clients::new(limits.parked_client(), limits.max_clients),
            limits,
            metrics,
            handshakes: Gauge::default(),
            parked: Gauge::default(),
            api,
            started: Instant::now(),
            draining: AtomicBool::new(false),
        }
    }

    /// The table now; none for a drop-in server.
    pub fn table(&self) -> Option<Arc<RouteTable>> {
        self.table.as_ref().map(|table| table.current())
    }

    /// May an address do one more thing of a kind that has its own rate? `place` tells the kinds apart.
    pub fn admit_rate(&self, place: usize, client: Client, rate: Rate, now: Instant) -> bool {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).admit((place, client), rate, now)
    }

    /// A process that started lately cannot know whose tunnel is on its way back.
    pub fn is_young(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.started) < self.limits.held_lately()
    }

    /// Has the end begun?
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The end begins.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.draining.set(1);
    }

    /// How long the process has been up.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}
