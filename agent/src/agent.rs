//! An agent inside a process: what the binary runs, and what others embed. Signals, settings and logs are the
//! caller's; where sessions come from, the target and the certificate are handed in.

use std::sync::Arc;
use std::time::Duration;

use snitun::driver::TunnelSettings;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::certificates::{CertificateFacts, Certificates};
use crate::channel::{Channels, Passthrough, Terminate, Way};
use crate::http::HttpFront;
use crate::keep_connected::{Parts, keep_connected};
use crate::metrics::Metrics;
use crate::session::SessionSource;
use crate::settings::Limits;
use crate::target::{Target, TargetSpec};

/// What an agent is made of.
#[derive(Debug)]
pub struct AgentParts {
    /// Where sessions come from.
    pub sessions: SessionSource,
    /// The instance.
    pub target: TargetSpec,
    /// Where TLS ends.
    pub tls: TlsEnd,
    /// What runs behind us.
    pub product: Option<String>,
    /// Its version, as it changes; watched for as long as its sender lives.
    pub version: watch::Receiver<Option<String>>,
    /// Every limit.
    pub limits: Limits,
    /// To be kept up to date.
    pub metrics: Arc<Metrics>,
}

/// Where a visitor's TLS ends.
#[derive(Debug)]
pub enum TlsEnd {
    /// In the instance.
    Instance {
        /// Put a PROXY v2 header with the visitor's address in front of its bytes?
        send_proxy: bool,
    },
    /// Here.
    Agent {
        /// What visitors are shown.
        certificates: Arc<Certificates>,
        /// Set X-Forwarded-For, -Proto and -Host?
        forwarded_headers: bool,
        /// Where TLS and HTTP run: apart from the tunnels, which cannot wait for a handshake.
        http: Handle,
    },
}

/// An agent that runs. Dropping it stops it at once, [`Agent::stop`] in peace.
#[derive(Debug)]
pub struct Agent {
    stop: CancellationToken,
    certificates: Option<Arc<Certificates>>,
    metrics: Arc<Metrics>,
    kept: JoinHandle<()>,
    _tasks: JoinSet<()>,
}

impl Agent {
    /// Starts on the runtime of the caller, where the tunnels then live. The target is looked up before the first tunnel
    /// opens. Visitors have `grace` to finish once it is told to stop.
    pub fn start(parts: AgentParts, grace: Duration) -> Self {
        let AgentParts { sessions, target, tls, product, version, limits, metrics } = parts;
        let target = Target::unresolved(target);
        let mut tasks = JoinSet::new();
        let (way, certificates) = match tls {
            TlsEnd::Agent { certificates, forwarded_headers, http } => {
                let front =
                    HttpFront::new(certificates.clone(), target.clone(), forwarded_headers, limits.clone());
                let fresh = certificates.clone();
                tasks.spawn(async move { fresh.keep_fresh().await });
                (Way::Terminate(Terminate::new(front, http)), Some(certificates))
            }
            TlsEnd::Instance { send_proxy } => {
                (Way::Passthrough(Passthrough::new(target.clone(), send_proxy)), None)
            }
        };
        let fresh = target.clone();
        tasks.spawn(async move { fresh.keep_fresh().await });
        let mut tunnel = TunnelSettings::default();
        tunnel.protocol.max_channels = limits.max_connections;
        let channels = Channels::new(way, metrics.clone());
        let parts = Parts {
            sessions,
            channels,
            certificates: certificates.clone(),
            product,
            version,
            tunnel,
            metrics: metrics.clone(),
        };
        let stop = CancellationToken::new();
        let told = stop.clone();
        let kept = tokio::spawn(async move {
            tokio::select! {
                () = target.look_up() => keep_connected(parts, told, grace).await,
                () = told.cancelled() => {}
            }
        });
        Self { stop, certificates, metrics, kept, _tasks: tasks }
    }

    /// Is there a tunnel that takes visitors?
    pub fn is_connected(&self) -> bool {
        self.metrics.is_connected()
    }

    /// The certificate that visitors are shown, where TLS ends here.
    pub fn certificate(&self) -> Option<Arc<CertificateFacts>> {
        self.certificates.as_ref().and_then(|certificates| certificates.facts())
    }

    /// Begins to end: visitors may finish.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Has the end begun?
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Returns once it has ended; an error where it did not end by itself.
    pub async fn ended(&mut self) -> Result<(), JoinError> {
        if self.kept.is_finished() { Ok(()) } else { (&mut self.kept).await }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kept.abort();
    }
}
