//! Keeps a tunnel up: obtains sessions, opens tunnels, opens the next one beside one that drains, and ends them all.
//!
//! What to do when is decided by [`Reconnect`]; this file only carries it out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use snitun::driver::{Asked, Signal, TunnelEnd, TunnelHandle, TunnelSettings};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::certificates::Certificates;
use crate::channel::{ChannelHost, Channels, TunnelId};
use crate::metrics::Metrics;
use crate::reconnect::{Action, Outcome, Reconnect, Refusal};
use crate::session::{Report, Session, SessionError, SessionSource};
use crate::tunnel::{Opened, TunnelError, open};

/// Visitors who are on their way through a tunnel that is about to go are still let in for this long.
const LAST_ARRIVALS: Duration = Duration::from_millis(500);

/// All it takes.
#[derive(Debug)]
pub struct Parts {
    /// Where sessions come from.
    pub sessions: SessionSource,
    /// What becomes of visitors.
    pub channels: Arc<Channels>,
    /// In terminate mode.
    pub certificates: Option<Arc<Certificates>>,
    /// What runs behind us.
    pub product: Option<String>,
    /// Its version, as it changes.
    pub version: watch::Receiver<Option<String>>,
    /// Of each tunnel.
    pub tunnel: TunnelSettings,
    /// To be kept up to date.
    pub metrics: Arc<Metrics>,
}

enum Failed {
    Session(SessionError),
    Tunnel(TunnelError),
}

type Attempt = Pin<Box<dyn Future<Output = Result<(Session, Opened), Failed>> + Send>>;

enum Event {
    Attempted(Box<Result<(Session, Opened), Failed>>),
    Due,
    Ended(TunnelId, TunnelEnd),
    Signal(TunnelId, Signal),
    Version,
    Stop,
}

struct Keeper {
    parts: Arc<Parts>,
    machine: Reconnect,
    started: Instant,
    attempt: Option<Attempt>,
    due: Option<Instant>,
    tunnels: JoinSet<(TunnelId, TunnelEnd)>,
    handles: BTreeMap<TunnelId, TunnelHandle<Infallible>>,
    /// The one that takes visitors; the others drain.
    current: Option<TunnelId>,
    next_id: TunnelId,
    signals: mpsc::UnboundedSender<(TunnelId, Signal)>,
}

/// Runs until `stop`, then lets visitors finish for `grace` at most.
pub async fn keep_connected(parts: Parts, stop: CancellationToken, grace: Duration) {
    let mut versions = parts.version.clone();
    let reports = parts.sessions.reports();
    let (signals, mut heard) = mpsc::unbounded_channel();
    let mut keeper = Keeper {
        parts: Arc::new(parts),
        machine: Reconnect::new(Duration::ZERO),
        started: Instant::now(),
        attempt: None,
        due: Some(Instant::now()),
        tunnels: JoinSet::new(),
        handles: BTreeMap::new(),
        current: None,
        next_id: 1,
        signals,
    };
    versions.mark_unchanged();
    loop {
        let idle = keeper.attempt.is_none();
        let due = keeper.due;
        let event = tokio::select! {
            () = stop.cancelled() => Event::Stop,
            attempted = some(keeper.attempt.as_mut()), if !idle => Event::Attempted(Box::new(attempted)),
            () = until(due), if idle => Event::Due,
            Some(Ok((id, end))) = keeper.tunnels.join_next() => Event::Ended(id, end),
            Some((id, signal)) = heard.recv() => Event::Signal(id, signal),
            // An attempt under way tells the version it began with: another one is news afterwards.
            Ok(()) = versions.changed(), if reports && idle => Event::Version,
        };
        match event {
            Event::Stop => break,
            Event::Due => {
                // What the attempt reports is no news any more.
                versions.mark_unchanged();
                keeper.begin();
            }
            Event::Attempted(outcome) => keeper.attempted(*outcome),
            Event::Ended(id, end) => keeper.ended(id, &end),
            Event::Signal(id, signal) => keeper.heard(id, signal),
            Event::Version => keeper.after(Outcome::VersionChanged),
        }
    }
    keeper.stop(grace).await;
}

/// Ends a tunnel beside which there is another now. Its proxy may not know of that one, or may be opening a visitor.
async fn leave(tunnel: TunnelHandle<Infallible>) {
    sleep(LAST_ARRIVALS).await;
    tunnel.signal(Signal::GoAway);
    sleep(LAST_ARRIVALS).await;
    tunnel.drain();
}

async fn some(attempt: Option<&mut Attempt>) -> Result<(Session, Opened), Failed> {
    match attempt {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Keeper {
    fn begin(&mut self) {
        self.due = None;
        self.machine.attempt();
        let id = self.next_id;
        self.next_id += 1;
        let host = ChannelHost::new(id, self.parts.channels.clone(), self.signals.clone());
        self.attempt = Some(Box::pin(attempt(self.parts.clone(), host)));
    }

    fn attempted(&mut self, outcome: Result<(Session, Opened), Failed>) {
        self.attempt = None;
        match outcome {
            Ok((session, (tunnel, handle))) => {
                let id = self.next_id - 1;
                tracing::info!(
                    tunnel = id, server = %session.server, cipher = %session.cipher,
                    protocol_version = %session.protocol_version, session = session.id.as_deref(),
                    instance = session.instance.as_deref(), hostnames = ?session.hostnames.unwrap_or_default(),
                    "connected"
                );
                // The driver keeps its own measure of fairness.
                let run = tokio::task::unconstrained(tunnel);
                self.tunnels.spawn(async move {
                    let (why, counts) = run.await;
                    tracing::debug!(tunnel = id, ?counts, "what the tunnel saw");
                    (id, why)
                });
                // The proxy may speak to us of moving and of conflicts.
                handle.signal(Signal::Latchkey);
                if let Some(old) = self.current.replace(id).and_then(|old| self.handles.get(&old)) {
                    tokio::spawn(leave(old.clone()));
                }
                self.handles.insert(id, handle);
                self.parts.metrics.tunnels_opened.add(1);
                self.parts.metrics.set_connected(true);
                self.after(Outcome::Connected);
            }
            Err(Failed::Tunnel(error)) => {
                self.parts.metrics.attempts_failed.add(1);
                self.after_with(Outcome::ConnectFailed, &error);
            }
            Err(Failed::Session(error)) => {
                let Some((refusal, retry_after)) = error.refusal() else {
                    self.parts.metrics.attempts_failed.add(1);
                    return self.after_with(Outcome::ConnectFailed, &error);
                };
                self.parts.metrics.attempts_refused.add(1);
                if refusal == Refusal::Blocked {
                    // A tunnel opened for another version must not outlive the answer.
                    self.end_current(Asked::Revoked);
                }
                self.after_with(Outcome::Refused { refusal, retry_after }, &error);
            }
        }
    }

    fn ended(&mut self, id: TunnelId, end: &TunnelEnd) {
        self.handles.remove(&id);
        self.parts.metrics.tunnels_ended.add(1);
        let current = self.current == Some(id);
        tracing::info!(tunnel = id, why = ?end, in_use = current, "the tunnel has ended");
        if current {
            self.current = None;
            self.parts.metrics.set_connected(false);
            self.after(Outcome::Lost);
        }
    }

    fn heard(&mut self, id: TunnelId, signal: Signal) {
        if self.current != Some(id) {
            return;
        }
        match signal {
            Signal::GoAway => {
                tracing::info!(tunnel = id, "the proxy asks for a second tunnel, this one drains");
                self.after(Outcome::GoAway);
            }
            Signal::Conflict => {
                tracing::warn!(
                    tunnel = id,
                    "another agent serves this instance, waiting before the next attempt (`tunnels` in the instance's \
                     resource allows more than one)"
                );
                self.end_current(Asked::Conflict);
                self.after(Outcome::Conflict);
            }
            // What agents say, not proxies.
            Signal::Latchkey => {}
        }
    }

    fn end_current(&mut self, why: Asked) {
        if let Some(handle) = self.current.take().and_then(|id| self.handles.get(&id)) {
            handle.end(why);
        }
        self.parts.metrics.set_connected(false);
    }

    fn after_with(&mut self, outcome: Outcome, error: &dyn std::fmt::Display) {
        self.after(outcome);
        let next = self.due.map(|due| due.saturating_duration_since(Instant::now()));
        tracing::warn!(%error, next_attempt_in = ?next, "no tunnel");
    }

    fn after(&mut self, outcome: Outcome) {
        match self.machine.after(outcome, self.started.elapsed(), rand::random::<f64>()) {
            Action::Now => self.due = Some(Instant::now()),
            Action::In(time) => self.due = Some(Instant::now() + time),
            Action::Stay => {}
        }
    }

    async fn stop(mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.attempt = None;
        for handle in self.handles.values() {
            handle.signal(Signal::GoAway);
        }
        let terminate = self.parts.channels.terminate();
        if let Some(terminate) = terminate {
            terminate.front().begin_stop();
        }
        if self.handles.is_empty() {
            return;
        }
        self.wait_for_tunnels(Instant::now() + LAST_ARRIVALS.min(grace)).await;
        self.parts.channels.refuse_new();
        if let Some(terminate) = self.parts.channels.terminate() {
            let front = terminate.front().clone();
            front.finish(deadline.saturating_duration_since(Instant::now())).await;
        }
        for handle in self.handles.values() {
            handle.drain();
        }
        self.wait_for_tunnels(deadline.max(Instant::now() + LAST_ARRIVALS)).await;
        for (id, handle) in &self.handles {
            tracing::warn!(tunnel = id, visitors = handle.channels(), "the grace is over, visitors are cut");
            handle.end(Asked::Stopping);
        }
        // What is queued for the proxy leaves within the tunnel's farewell.
        self.wait_for_tunnels(Instant::now() + Duration::from_secs(2)).await;
    }

    /// Until all have ended, or it is `until`.
    async fn wait_for_tunnels(&mut self, until: Instant) {
        while let Ok(Some(ended)) = tokio::time::timeout_at(until, self.tunnels.join_next()).await {
            if let Ok((id, _)) = ended {
                self.handles.remove(&id);
            }
        }
    }
}

async fn attempt(parts: Arc<Parts>, host: ChannelHost) -> Result<(Session, Opened), Failed> {
    let report = || Report {
        product: parts.product.clone(),
        version: parts.version.borrow().clone(),
        certificate: parts
            .certificates
            .as_ref()
            .and_then(|shown| shown.facts())
            .map(|facts| (*facts).clone()),
    };
    let told = report();
    let mut session = parts.sessions.obtain(&told).await.map_err(Failed::Session)?;
    if let (Some(certificates), Some(hostnames)) = (&parts.certificates, &session.hostnames) {
        certificates.set_hostnames(hostnames);
        // The names may have brought another certificate: what was told about it is wrong already.
        let now = report();
        if parts.sessions.reports() && now.certificate != told.certificate {
            session = parts.sessions.obtain(&now).await.map_err(Failed::Session)?;
        }
    }
    let opened = open(&session, parts.tunnel.clone(), host).await.map_err(Failed::Tunnel)?;
    Ok((session, opened))
}
