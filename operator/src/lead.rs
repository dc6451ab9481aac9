//! What only the leader does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;

use crate::domains::{self, DomainsError, Prover};
use crate::joining::Joining;
use crate::keeping;
use crate::keys::Keys;
use crate::names::Names;
use crate::observe::Observer;
use crate::overview::Overview;
use crate::publish::Publisher;
use crate::reconcile::{Parts, Reconciler};
use crate::released::{Released, ReleasedError};
use crate::settings::Settings;
use crate::sight::Eyes;
use crate::workload::Workload;
use crate::workload::pods::ProxyPods;
use crate::workload::roll::ProxySeen;
use crate::workload::roll_shell::ProxyView;
use crate::workload::settings_source::SettingsSource;
use crate::write_status::{self, StatusWriter};

/// What every replica has, the leader too.
pub(crate) struct Shared {
    /// The API server.
    pub(crate) client: Client,
    /// What objects are called.
    pub(crate) names: Names,
    /// The process's settings.
    pub(crate) settings: Settings,
    /// Objects.
    pub(crate) observer: Arc<Observer>,
    /// The installation's settings.
    pub(crate) source: Arc<SettingsSource>,
    /// The proxies' pods.
    pub(crate) pods: Arc<ProxyPods>,
    /// Proxies.
    pub(crate) publisher: Arc<Publisher>,
    /// The installation's secrets.
    pub(crate) keys: Arc<Keys>,
    /// What the planner has to know of both.
    pub(crate) planner_settings: watch::Receiver<Arc<planner::Settings>>,
    /// Join tokens.
    pub(crate) joining: Arc<Joining>,
    /// For whoever looks.
    pub(crate) overview: Arc<watch::Sender<Arc<Overview>>>,
    /// For whoever measures.
    pub(crate) eyes: Arc<Eyes>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Why a leader cannot lead.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// Labels given up are not known, so a quarantined one could go to somebody else.
    #[error(transparent)]
    Released(#[from] ReleasedError),
    /// Custom domains cannot be proven.
    #[error(transparent)]
    Domains(#[from] DomainsError),
    /// See the log.
    #[error("a plan could not be made: the log says why")]
    Broken,
}

/// Leads, for ever. Dropping the future stops everything that only a leader does.
pub(crate) async fn lead(shared: Shared, term: u64) -> LeadError {
    match begin(shared, term).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn begin(shared: Shared, term: u64) -> Result<Infallible, LeadError> {
    let Shared {
        client,
        names,
        settings,
        observer,
        source,
        pods,
        publisher,
        keys,
        planner_settings,
        joining,
        overview,
        eyes,
    } = shared;
    overview.send_modify(|overview| {
        *overview = Arc::new(Overview { term: Some(term), revision: None, ..(**overview).clone() });
    });
    let released = Released::read(client.clone(), &names).await?;
    let resolver =
        domains::Settings { name_servers: settings.resolvers.clone(), ..domains::Settings::default() };
    let prover = Arc::new(Prover::start(resolver)?);
    let mut writing = write_status::Settings::of(&settings.identity, names.status_manager());
    writing.writes_per_second = settings.status_writes;
    let statuses = Arc::new(StatusWriter::start(&client, writing));
    publisher.lead(term);
    let workload = (!settings.no_workload).then(|| {
        let view = Arc::new(Attached(publisher.clone()));
        Workload::start(&client, &names, &settings.identity, &source, &pods, view)
    });
    eyes.lead(statuses.clone(), workload);
    let parts = Parts {
        observer,
        settings: planner_settings,
        publisher,
        prover,
        joining,
        statuses,
        released,
        overview,
        turns: eyes.turns(),
    };
    tokio::select! {
        () = Reconciler::new(parts).run() => Err(LeadError::Broken),
        never = keeping::rotate_keys(&keys, &source) => match never {},
    }
}

/// The proxies, as the link sees them.
#[derive(Debug)]
struct Attached(Arc<Publisher>);

impl ProxyView for Attached {
    fn proxies(&self) -> BTreeMap<String, ProxySeen> {
        let seen = |proxy: crate::publish::ProxyState| {
            // No lag means that there is no newer table than the one in force there.
            let is_current = proxy.ready && proxy.position.is_some() && proxy.lag.is_zero();
            (proxy.name.to_string(), ProxySeen { is_current, tunnels: u64::from(proxy.tunnels) })
        };
        self.0.proxies().into_iter().map(seen).collect()
    }
}
