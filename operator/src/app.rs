//! The process: starts the parts, contends for the lease, leads while it has it, and ends in peace.
//!
//! Every replica watches, keeps the installation's secrets in mind and answers proxies ("not the leader"), so that the next
//! one leads within moments. What only a leader has is made in [`crate::lead`].

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::joining::Joining;
use crate::lead::{self, LeadError, Shared};
use crate::leader::{Leadership, Loss, Timing};
use crate::observe::{Observer, Scope};
use crate::overview::Overview;
use crate::publish::{self, Publisher};
use crate::settings::Settings;
use crate::sight::{Eyes, Whole};
use crate::workload::pods::ProxyPods;
use crate::workload::settings_source::SettingsSource;
use crate::{admin, keeping, keys, logging, reconcile};

/// Why the process ends badly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Logging could not be set up.
    #[error("{0}")]
    Logging(String),
    /// No way to the API server.
    #[error("no API server: {0}; in a pod its ServiceAccount shows the way, elsewhere KUBECONFIG")]
    Client(#[from] kube::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The installation's secrets are not to be had.
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    /// The lease is lost: another process leads, and this one must not go on.
    #[error("this process leads no more: {0}")]
    Lost(Loss),
    /// What only a leader does has failed.
    #[error(transparent)]
    Lead(#[from] LeadError),
    /// A thread or a signal handler could not be made.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Runs the operator; says what went wrong on standard error.
pub fn main(settings: Settings) -> ExitCode {
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There may be no log yet, and nothing is left to do if even that fails.
            let _ = writeln!(io::stderr(), "latchkey-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> Result<(), AppError> {
    // The only provider there is; a second call changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    logging::start(settings.log_format, &settings.log).map_err(AppError::Logging)?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(until_told(settings));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Runs until a signal.
async fn until_told(settings: Settings) -> Result<(), AppError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell_end, end) = watch::channel(false);
    let mut running = std::pin::pin!(serve(settings, end));
    tokio::select! {
        result = &mut running => return result,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tell_end.send_replace(true);
    tokio::select! {
        result = running => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn serve(settings: Settings, mut end: watch::Receiver<bool>) -> Result<(), AppError> {
    let names = settings.names();
    let overview = Arc::new(watch::Sender::new(Arc::new(Overview::default())));
    let publisher = Publisher::new(publish::Limits::default());
    let client = client().await?;
    // Everything that runs beside; it ends with this function.
    let mut beside = JoinSet::new();
    let source = Arc::new(SettingsSource::start(client.clone(), &names));
    let pods = Arc::new(ProxyPods::start(client.clone(), &names));
    let leader = Arc::new(watch::Sender::default());
    let whole = Whole {
        names: names.clone(),
        identity: settings.identity.clone(),
        source: source.clone(),
        pods: pods.clone(),
        leader: leader.subscribe(),
    };
    let eyes = Arc::new(Eyes::new(&overview, &publisher, whole));
    beside.spawn(admin::serve(listen(settings.admin).await?, eyes.clone()));
    let observer = Arc::new(Observer::start(&client, &Scope::All, &names.status_manager()));
    beside.spawn(keeping::tell_pods(pods.clone(), publisher.clone()));
    beside.spawn(keeping::tell_sync(observer.clone(), overview.clone()));
    // Nothing can be done without settings; whoever forgot them is told by /readyz and the log.
    let first = tokio::select! {
        first = keeping::first_settings(&source, &overview) => first,
        _ = end.wait_for(|end| *end) => return Ok(()),
    };
    let host = keeping::session_host(&source);
    let keys = keys::Keys::ensure(
        client.clone(),
        names.clone(),
        keys::Lives::default(),
        host.as_ref(),
        reconcile::now(),
    )
    .await?;
    let (planner_settings, follow) = keeping::planner_settings(&names, &first, source.clone(), keys.clone());
    beside.spawn(follow);
    beside.spawn(keeping::tell_token_keys(keys.clone(), publisher.clone()));
    let (joining, follow) = keeping::joining_settings(&first, source.clone(), keys.clone());
    beside.spawn(follow);
    let joining = Joining::start(client.clone(), &names, &settings.identity, joining);
    let link = listen(settings.link).await?;
    beside.spawn(publish::serve(link, keys.server_tls(), publisher.clone(), joining.clone()));
    let shared = Shared {
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
    };
    follow_or_lead(shared, &leader, end).await
}

/// Follows until the lease is free, then leads until it is lost or the process is told to end.
async fn follow_or_lead(
    shared: Shared,
    leader: &watch::Sender<Option<String>>,
    mut end: watch::Receiver<bool>,
) -> Result<(), AppError> {
    let timing = timing(shared.settings.lease());
    let leading = {
        let (client, names) = (shared.client.clone(), shared.names.clone());
        let identity = shared.settings.identity.clone();
        // A process that is not in sync could only make others wait.
        let acquire = async {
            shared.observer.synced().await;
            Leadership::contend(client, &names, &identity, timing, leader).await
        };
        tokio::select! {
            leading = acquire => leading,
            ended = keeping::follow_keys(&shared.keys) => match ended {},
            _ = end.wait_for(|end| *end) => return Ok(()),
        }
    };
    let publisher = shared.publisher.clone();
    tokio::select! {
        loss = leading.lost() => Err(AppError::Lost(loss)),
        failed = lead::lead(shared, leading.term()) => Err(failed.into()),
        _ = end.wait_for(|end| *end) => {
            publisher.resign();
            leading.release().await;
            Ok(())
        }
    }
}

/// In the proportions of Kubernetes' own controllers.
fn timing(lease: Duration) -> Timing {
    Timing { duration: lease, renew_deadline: lease * 2 / 3, retry: lease * 2 / 15 }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Listen { address, source })
}

/// The way to the API server: that of the pod, else the one KUBECONFIG shows.
async fn client() -> Result<Client, AppError> {
    let mut config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    // Every part has its own idea of when to try again; another one underneath would hide failures from it.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
