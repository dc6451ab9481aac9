//! Puts the proxy together and runs it: the only place that knows every part.

use std::{
    io::{self, Write},
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::unix::AsyncFd,
    runtime::{Builder, Handle, Runtime},
    signal::unix::{SignalKind, signal},
};

use crate::{
    admin::AdminServer,
    door::{ApiDesk, Door, Parts},
    drain::{Entrance, drain},
    fernet_keys::{FernetKeyRing, KeyFileError, WATCH_EVERY},
    listen::listen,
    logging::{self, LoggingError},
    metrics::Metrics,
    routes::{FileWatch, Live as LiveTable, LiveRoutes, RouteSource, RoutesFile, RoutesFileError},
    session_api::{ApiTlsError, Desk, DeskParts, NoEnrolment, SessionApiSettings, TokenTerms},
    settings::Settings,
    tunnels::{data_threads::DataThreads, open::end_if_revoked, registry::Registry},
    view::View,
    visitor::accept::accept_all,
};

/// Why the proxy did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A setting is missing.
    #[error("{0}")]
    Setting(String),
    /// Logging could not be set up.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The Fernet keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The routes cannot be used.
    #[error(transparent)]
    Routes(#[from] RoutesFileError),
    /// The session API cannot have its certificate.
    #[error(transparent)]
    ApiTls(#[from] ApiTlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which one.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// A thread, a runtime or a signal handler could not be made.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Says on the terminal what went wrong, when there may be no log yet.
pub fn complain(error: &AppError) {
    // Nothing is left to do if even that fails.
    let _ = writeln!(io::stderr(), "latchkey-proxy: {error}");
}

/// Runs the proxy until it is told to end.
pub fn run(settings: Settings) -> Result<(), AppError> {
    logging::init(settings.log_format)?;
    let most = byte_relay::descriptors::take_all();
    tracing::debug!(most, "file descriptors");
    // Nothing of rustls works without it; a second call, in a test, changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if settings.fernet_keys.is_none() && settings.routes.is_none() {
        return Err(AppError::Setting(
            "nothing to serve: give --fernet-keys FILE (a drop-in SniTun server) or --routes FILE".into(),
        ));
    }
    let runtime =
        Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()?;
    let result = runtime.block_on(serve(settings, &runtime));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(settings: Settings, runtime: &Runtime) -> Result<(), AppError> {
    // Before anything is slow: a signal that comes while we start must not kill what others rely on.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = Arc::new(Metrics::new());
    let keys = Arc::new(match &settings.fernet_keys {
        Some(file) => FernetKeyRing::from_file(file)?,
        None => FernetKeyRing::random()?,
    });
    runtime.spawn(keys.clone().watch(WATCH_EVERY, metrics.clone()));
    let routes = match &settings.routes {
        Some(file) => Some(RoutesFile::open(file, FileWatch::default()).await?),
        None => None,
    };
    let table = routes.as_ref().map(|routes| routes.live().clone());
    let threads = DataThreads::start(settings.data_threads())?;
    let front = threads.front().ok_or_else(|| AppError::Setting("no data thread".into()))?;
    let limits = settings.limits.clone().with_budget();
    let domain = settings.domain.as_ref().map(|domain| domain.trim_end_matches('.').to_ascii_lowercase());
    let registry = Arc::new(Registry::default());
    let api = match &table {
        Some(table) => {
            let reports = registry.clone();
            open_session_api(&settings, domain.clone(), table, &keys, &metrics, reports, runtime)?
        }
        None => None,
    };
    let parts = Parts { table, domain, registry, keys, threads, limits, metrics: metrics.clone(), api };
    let door = Arc::new(Door::new(parts));
    if let Some(routes) = &routes {
        runtime.spawn(apply_changes(door.clone(), routes.subscribe()));
    }
    runtime.spawn(forget_idle(door.clone()));
    let view = Arc::new(View { door: door.clone(), routes: routes.as_ref().map(RoutesFile::state) });
    let _admin = match settings.admin {
        Some(address) => Some(
            AdminServer::start(address, view, metrics)
                .map_err(|error| AppError::Listen { address: address.to_string(), error })?,
        ),
        None => None,
    };
    let mut entrances = Vec::new();
    for address in &settings.listen {
        let listener =
            listen(*address).map_err(|error| AppError::Listen { address: address.to_string(), error })?;
        tracing::info!(address = %listener.local_addr()?, "listening");
        entrances.push(open_entrance(&door, listener, &front)?);
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::select! {
        () = drain(door, entrances, settings.grace()) => tracing::info!("drained"),
        _ = terminate.recv() => tracing::warn!("told twice: ending at once"),
        _ = interrupt.recv() => tracing::warn!("told twice: ending at once"),
    }
    Ok(())
}

/// The session API, where a domain is known: in the settings, or in the table now. It runs apart from
/// the threads that move bytes.
fn open_session_api(
    settings: &Settings,
    domain: Option<String>,
    table: &Arc<LiveTable>,
    keys: &Arc<FernetKeyRing>,
    metrics: &Arc<Metrics>,
    reports: Arc<Registry>,
    runtime: &Runtime,
) -> Result<Option<Box<dyn ApiDesk>>, AppError> {
    let terms = TokenTerms { server: settings.tunnel_address.clone(), ..TokenTerms::default() };
    let table = table.clone();
    let parts = DeskParts {
        settings: SessionApiSettings { terms, ..SessionApiSettings::default() },
        domain,
        table: Arc::new(move || table.current()),
        keys: keys.clone(),
        metrics: metrics.clone(),
        reports,
        enrolment: Arc::new(NoEnrolment),
    };
    let desk = Desk::open(parts, Some(&settings.api_tls), runtime.handle().clone())?;
    Ok(desk.map(|desk| Box::new(desk) as Box<dyn ApiDesk>))
}

/// Starts accepting, on the thread that accepts.
#[expect(
    deprecated,
    reason = "its successor needs unsafe code; a TcpListener keeps its descriptor, as both ask"
)]
fn open_entrance(door: &Arc<Door>, listener: TcpListener, front: &Handle) -> io::Result<Entrance> {
    let _reactor = front.enter();
    let listener = Arc::new(AsyncFd::new(listener)?);
    let task = front.spawn(accept_all(door.clone(), listener.clone()));
    Ok(Entrance { listener, task: task.abort_handle() })
}

/// Looks over every open tunnel whenever the table changes.
async fn apply_changes(door: Arc<Door>, mut routes: LiveRoutes) {
    loop {
        routes.changed().await;
        let table = routes.current();
        for live in door.registry.all().iter().flat_map(|instance| instance.live()) {
            end_if_revoked(Some(&table), &live.session, &live.tunnel);
        }
    }
}

async fn forget_idle(door: Arc<Door>) {
    loop {
        tokio::time::sleep(Duration::from_mins(1)).await;
        door.registry.forget_idle(door.limits.held_lately().max(Duration::from_mins(10)), Instant::now());
    }
}
