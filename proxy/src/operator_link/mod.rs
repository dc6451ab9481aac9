//! The proxy's end of the link to an operator (`proto/latchkey/link/v1/link.proto`): routes, token keys and answers to
//! who wants to join come down, what goes on here goes up.
//!
//! The way of an update: `calls` keeps a `stream` to every pod, `leaders` decides whose word counts, `table` puts
//! in force what it says, `cache` keeps it for a restart. The way of a fact: the registry and the session API tell
//! `witness`, `facts` is the book it keeps, `report` reads it to the leader.
//!
//! Nothing here is on the way of a visitor: without an operator, everything goes on with the table there is.

mod backoff;
mod cache;
mod calls;
mod dial;
mod enrolment;
mod facts;
mod leaders;
mod report;
mod settings;
mod skipping;
mod state;
mod stream;
mod table;
mod tls;
mod witness;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use operator_link::Position;
use rand::Rng as _;
use tokio::{runtime::Handle, task::AbortHandle};

pub use settings::{OperatorAddress, OperatorSettings};
pub use state::LinkMetrics;
pub use tls::LinkTlsError;

use self::{
    enrolment::LeaderEnrolment, leaders::Leaders, state::LinkState, table::Table, tls::LinkTls,
    witness::Witness,
};
use crate::{
    admin::Condition,
    clock,
    door::Door,
    metrics::UpdateResult,
    routes::Live,
    session_api::{Enrolment, Reports},
};

/// Why there can be no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A setting is missing.
    #[error("{0}")]
    Setting(&'static str),
    /// The operator's name is none.
    #[error(transparent)]
    Tls(#[from] LinkTlsError),
}

/// The link, before and while it is up. Dropping it ends it.
#[derive(Debug)]
pub struct OperatorLink {
    addresses: Vec<OperatorAddress>,
    tls: LinkTls,
    replica: String,
    cache: Option<PathBuf>,
    leaders: Arc<Leaders>,
    table: Arc<Table>,
    witness: Arc<Witness>,
    enrolment: Arc<LeaderEnrolment>,
    state: Arc<LinkState>,
    tasks: Vec<AbortHandle>,
}

impl OperatorLink {
    /// Gets everything ready, with the table of the cache if there is one; calls nobody yet. Nothing without
    /// `--operator`.
    pub fn prepare(
        settings: &OperatorSettings,
        metrics: impl FnOnce() -> LinkMetrics,
    ) -> Result<Option<Self>, LinkError> {
        let addresses = settings.operator.clone();
        let Some(first) = addresses.first() else { return Ok(None) };
        let folder =
            settings.operator_tls.clone().ok_or(LinkError::Setting("--operator needs --operator-tls DIR"))?;
        let name = settings.operator_name.as_deref().unwrap_or(&first.host);
        let tls = LinkTls::new(folder, name.trim_end_matches('.'))?;
        let replica =
            settings.replica().ok_or(LinkError::Setting("this host has no name: give --replica NAME"))?;
        let cache = settings.table_cache.clone();
        let cached = cache.as_ref().and_then(|path| match cache::read(path) {
            Ok(cached) => cached,
            Err(error) => {
                tracing::warn!(target: "latchkey::operator", file = %path.display(), %error, "the kept table is passed over");
                None
            }
        });
        let state = LinkState::new(metrics());
        if let Some((position, table)) = &cached {
            state.in_force(*position, table.len(), None);
            tracing::info!(target: "latchkey::operator", %position, routes = table.len(), "the kept table is in force");
        }
        let leaders = Arc::new(Leaders::new(cached.as_ref().map_or(0, |(position, _)| position.term)));
        let table = Arc::new(Table::new(cached));
        let enrolment = Arc::new(LeaderEnrolment::new(leaders.clone(), table.clone()));
        let (witness, state) = (Arc::default(), Arc::new(state));
        Ok(Some(Self {
            addresses,
            tls,
            replica,
            cache,
            leaders,
            table,
            witness,
            enrolment,
            state,
            tasks: Vec::new(),
        }))
    }

    /// Where its tables go.
    pub fn live(&self) -> &Arc<Live> {
        self.table.live()
    }

    /// Who registers keys.
    pub fn enrolment(&self) -> Arc<dyn Enrolment> {
        self.enrolment.clone()
    }

    /// Who hears what agents report.
    pub fn reports(&self) -> Arc<dyn Reports> {
        self.witness.clone()
    }

    /// What `/readyz` says of it.
    pub fn view(&self) -> LinkView {
        LinkView(self.state.clone())
    }

    /// Begins to call. To be called before the proxy listens: tunnels are followed from now on.
    pub fn start(&mut self, door: Arc<Door>, control: &Handle) {
        door.registry.changes().follow();
        let shared = Arc::new(Shared {
            addresses: self.addresses.clone(),
            tls: self.tls.clone(),
            replica: self.replica.clone(),
            incarnation: rand::rng().next_u64(),
            calls: AtomicU64::new(1),
            leaders: self.leaders.clone(),
            table: self.table.clone(),
            witness: self.witness.clone(),
            enrolment: self.enrolment.clone(),
            state: self.state.clone(),
            door,
        });
        tracing::info!(target: "latchkey::operator", operators = ?self.addresses, replica = self.replica, "calling the operator");
        if let Some(path) = self.cache.clone() {
            self.tasks.push(control.spawn(cache::keep(path, self.table.subscribe())).abort_handle());
        }
        self.tasks.push(control.spawn(calls::call_everybody(shared)).abort_handle());
    }

    /// Waits until there is a table to serve from.
    pub async fn has_table(&self) {
        // The sender is ours: there is no error to wait for.
        let _ = self.table.subscribe().wait_for(Option::is_some).await;
    }
}

impl Drop for OperatorLink {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// How the link is.
#[derive(Clone, Debug)]
pub struct LinkView(Arc<LinkState>);

impl LinkView {
    /// Has it a table, and is a leader attached?
    pub fn conditions(&self) -> [Condition; 2] {
        self.0.conditions()
    }

    /// When the table in force was applied; none while it is that of the cache.
    pub fn applied(&self) -> Option<SystemTime> {
        self.0.applied()
    }
}

/// What every stream needs.
#[derive(Debug)]
struct Shared {
    addresses: Vec<OperatorAddress>,
    tls: LinkTls,
    replica: String,
    /// Tells this process from the one before it.
    incarnation: u64,
    calls: AtomicU64,
    leaders: Arc<Leaders>,
    table: Arc<Table>,
    witness: Arc<Witness>,
    enrolment: Arc<LeaderEnrolment>,
    state: Arc<LinkState>,
    door: Arc<Door>,
}

impl Shared {
    fn next_call(&self) -> leaders::CallId {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// A table is in force.
    fn applied(&self, position: Position) {
        let routes = self.table.live().look(route_table::RouteTable::len);
        self.state.in_force(position, routes, Some(clock::now()));
        self.state.metrics.updates.inc(UpdateResult::Applied);
        self.door.metrics.routes_error.set(0);
        tracing::debug!(target: "latchkey::operator", %position, routes, "a table is in force");
    }
}
