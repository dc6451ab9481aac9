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
    clock,
    fernet_keys::KeyFileError,
    listen::listen,
    logging::{self, LoggingError},
    metrics::Metrics,
    proxy::{Proxy, ProxyParts, StartError},
    routes::RoutesFileError,
    settings::Settings,
    source::Source,
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
    /// The operator cannot be called.
    #[cfg(feature = "operator")]
    #[error(transparent)]
    Operator(#[from] crate::operator_link::LinkError),
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
    clock::set_from(std::env::var_os(clock::OFFSET_VARIABLE).as_deref()).map_err(AppError::Setting)?;
    let most = byte_relay::descriptors::take_all();
    tracing::debug!(most, "file descriptors");
    if !settings.has_a_source() {
        return Err(AppError::Setting(
            "nothing to serve: give --fernet-keys FILE (a drop-in SniTun server), --routes FILE or --operator \
             HOST:PORT"
                .into(),
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
    let mut metrics = Metrics::new();
    let mut source = Source::open(&settings, &mut metrics).await?;
    let metrics = Arc::new(metrics);
    let parts = ProxyParts {
        table: source.live(),
        domain: settings.domain.clone(),
        keys: source.keys(&settings)?,
        api: source.api(&settings),
        limits: settings.limits.clone(),
        data_threads: settings.data_threads(),
        metrics: metrics.clone(),
    };
    let mut proxy = Proxy::start(parts, runtime.handle())?;
    let view = source.view(proxy.door().clone());
    let listen_error =
        |address: SocketAddr| move |error| AppError::Listen { address: address.to_string(), error };
    let _admin = match settings.admin {
        Some(address) => {
            Some(AdminServer::start(address, Arc::new(view), metrics).map_err(listen_error(address))?)
        }
        None => None,
    };
    source.start(proxy.door(), runtime.handle());
    tokio::select! {
        () = source.is_there() => {}
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
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
