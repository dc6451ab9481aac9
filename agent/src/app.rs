//! The binary: settings in, an [`Agent`] that runs until a signal ends it.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::agent::{Agent, AgentParts, TlsEnd};
use crate::certificates::{CertificateSource, Certificates, Files, SelfSigned};
use crate::fingerprint::fingerprint;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::session::SessionSource;
use crate::session::file::SessionFile;
use crate::session::join::{Bundle, Join};
use crate::settings::{CertificateArgs, CertificateKind, Command, Mode, Settings, Switch};
use crate::state_folder::StateFolder;
use crate::version_source::VersionSource;
use crate::{admin, logging};

/// Threads for TLS and HTTP in terminate mode, at most.
const HTTP_THREADS: usize = 4;

/// The whole program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let settings = match Settings::try_parse_from(args) {
        Ok(settings) => settings,
        Err(told) => {
            let _ = told.print();
            return ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2));
        }
    };
    match start(&settings) {
        Ok(code) => code,
        Err(what) => {
            let _ = writeln!(std::io::stderr(), "latchkey-agent: {what}");
            ExitCode::FAILURE
        }
    }
}

fn start(settings: &Settings) -> Result<ExitCode, String> {
    // A second call finds the provider in place.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    logging::start(settings.process.log_format, &settings.process.log)?;
    let most = byte_relay::descriptors::take_all();
    tracing::debug!(most, "file descriptors");
    let print = |text: &str| std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string());
    match settings.command {
        Some(Command::Fingerprint) => {
            print(&fingerprint(&settings.certificate, &StateFolder::existing(&settings.connect.state))?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Key) => {
            print(&format!("{}\n", identity(settings)?.public_key_sha256()))?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    // Tunnels and, in passthrough, visitors live on this thread; TLS and HTTP on others.
    let data = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let http = match settings.visitors.mode {
        Mode::Passthrough => None,
        Mode::Terminate => Some(http_runtime().map_err(|error| error.to_string())?),
    };
    let outcome = data.block_on(run(settings, http.as_ref()));
    if let Some(http) = http {
        http.shutdown_background();
    }
    data.shutdown_background();
    outcome
}

fn http_runtime() -> std::io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(HTTP_THREADS);
    Builder::new_multi_thread().worker_threads(threads).thread_name("http").enable_all().build()
}

async fn run(settings: &Settings, http: Option<&Runtime>) -> Result<ExitCode, String> {
    let metrics = Arc::new(Metrics::default());
    if let Some(address) = settings.process.admin {
        let bound =
            TcpListener::bind(address).await.map_err(|error| format!("--admin {address}: {error}"))?;
        tokio::spawn(admin::serve(bound, metrics.clone()));
    }
    let sessions = sessions(settings)?;
    let target = settings.visitors.target.clone().ok_or("--target is missing")?;
    let tls = match http {
        Some(http) => TlsEnd::Agent {
            certificates: certificates(settings)?,
            forwarded_headers: settings.visitors.forwarded_headers == Switch::On,
            http: http.handle().clone(),
        },
        None => TlsEnd::Instance { send_proxy: settings.visitors.send_proxy.is_some() },
    };
    let version = versions(settings).await?;
    let product = settings.product.product.clone();
    let limits = settings.limits.clone();
    let grace = settings.process.grace;
    let parts = AgentParts { sessions, target, tls, product, version, limits, metrics };
    until_told(Agent::start(parts, grace), grace).await
}

/// The first SIGTERM (or interrupt) lets visitors finish, the second ends at once.
async fn until_told(mut agent: Agent, grace: Duration) -> Result<ExitCode, String> {
    let listen = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    loop {
        tokio::select! {
            ended = agent.ended() => return ended.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string()),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if agent.is_stopping() {
            tracing::warn!("told to stop again, ending at once");
            return Ok(ExitCode::FAILURE);
        }
        tracing::info!(grace_seconds = grace.as_secs(), "told to stop, visitors may finish");
        agent.stop();
    }
}

fn identity(settings: &Settings) -> Result<Arc<Identity>, String> {
    let folder = StateFolder::open(&settings.connect.state).map_err(|error| error.to_string())?;
    Identity::load_or_make(&folder).map_err(|error| error.to_string())
}

fn sessions(settings: &Settings) -> Result<SessionSource, String> {
    let connect = &settings.connect;
    if let Some(path) = &connect.join {
        let bundle = Bundle::read(path)?;
        let join = Join::new(bundle, identity(settings)?);
        let join = join.map_err(|what| format!("bundle {}: {what}", path.display()))?;
        return Ok(SessionSource::Api(Box::new(join)));
    }
    match (&connect.server, &connect.session) {
        (Some(server), Some(path)) => {
            crate::target::split_host_port(server).map_err(|what| format!("--server: {what}"))?;
            Ok(SessionSource::File(SessionFile::new(path, server)))
        }
        _ => Err("--join BUNDLE, or --server and --session, must say where to connect".into()),
    }
}

fn certificates(settings: &Settings) -> Result<Arc<Certificates>, String> {
    let CertificateArgs { cert, key, .. } = &settings.certificate;
    let source: Box<dyn CertificateSource> = match (settings.certificate.kind(), cert, key) {
        (CertificateKind::Files, Some(cert), Some(key)) => Box::new(Files::new(cert, key)),
        (CertificateKind::Files, ..) => return Err("--certificate files needs --cert and --key".into()),
        (CertificateKind::SelfSigned, ..) => {
            let folder = StateFolder::open(&settings.connect.state).map_err(|error| error.to_string())?;
            Box::new(SelfSigned::new(folder))
        }
    };
    Certificates::new(source, settings.visitors.hostnames.clone()).map_err(|error| error.to_string())
}

/// The version now, and as it changes.
async fn versions(settings: &Settings) -> Result<watch::Receiver<Option<String>>, String> {
    let source = VersionSource::from_settings(&settings.product)?;
    let first = source.read().await.unwrap_or_else(|what| {
        tracing::warn!("the product's version cannot be read yet: {what}");
        None
    });
    let (told, version) = watch::channel(first);
    tokio::spawn(source.watch(settings.product.product_version_interval, Arc::new(told)));
    Ok(version)
}
