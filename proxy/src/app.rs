//! The binary: settings in, a [`Proxy`] that runs until a signal ends it.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use crate::{
    admin::AdminServer,
    fernet_keys::{FernetKeyRing, KeyFileError},
    listen::listen,
    logging::{self, LoggingError},
    metrics::Metrics,
    proxy::{ApiParts, Proxy, ProxyParts, StartError},
    routes::{FileWatch, RoutesFile, RoutesFileError},
    settings::Settings,
    view::View,
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
    /// A part of the proxy cannot start.
    #[error(transparent)]
    Proxy(#[from] StartError),
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
    let routes = match &settings.routes {
        Some(file) => Some(RoutesFile::open(file, FileWatch::default()).await?),
        None => None,
    };
    let parts = ProxyParts {
        table: routes.as_ref().map(|routes| routes.live().clone()),
        domain: settings.domain.clone(),
        keys,
        api: ApiParts {
            tunnel_address: settings.tunnel_address.clone(),
            ..ApiParts::new(settings.api_tls.clone())
        },
        limits: settings.limits.clone(),
        data_threads: settings.data_threads(),
        metrics: metrics.clone(),
    };
    let mut proxy = Proxy::start(parts, runtime.handle())?;
    let view = View { door: proxy.door().clone(), routes: routes.as_ref().map(RoutesFile::state) };
    let listen_error =
        |address: SocketAddr| move |error| AppError::Listen { address: address.to_string(), error };
    let _admin = match settings.admin {
        Some(address) => {
            Some(AdminServer::start(address, Arc::new(view), metrics).map_err(listen_error(address))?)
        }
        None => None,
    };
    for address in &settings.listen {
        let listener = listen(*address).map_err(listen_error(*address))?;
        tracing::info!(address = %listener.local_addr()?, "listening");
        proxy.listen(listener)?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::select! {
        () = proxy.drain(settings.grace()) => tracing::info!("drained"),
        _ = terminate.recv() => tracing::warn!("told twice: ending at once"),
        _ = interrupt.recv() => tracing::warn!("told twice: ending at once"),
    }
    Ok(())
}
