//! What becomes of a visitor that comes through the tunnel.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use snitun::driver::{Arrived, ChannelEnd, Host, Signal};
use tokio::sync::mpsc;

use crate::metrics::Metrics;

pub mod forward_client_address;
mod passthrough;
mod stream;
mod terminate;

pub use passthrough::Passthrough;
pub use stream::ChannelStream;
pub use terminate::Terminate;

/// Which way visitors take.
#[derive(Debug)]
pub enum Way {
    /// To the instance as they are.
    Passthrough(Passthrough),
    /// To the HTTP server in this process.
    Terminate(Terminate),
}

/// What all tunnels share.
#[derive(Debug)]
pub struct Channels {
    way: Way,
    metrics: Arc<Metrics>,
    refusing: AtomicBool,
}

impl Channels {
    /// Visitors take `way`.
    pub fn new(way: Way, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { way, metrics, refusing: AtomicBool::new(false) })
    }

    /// Refuses every visitor that comes from now on.
    pub fn refuse_new(&self) {
        self.refusing.store(true, Ordering::Relaxed);
    }

    /// The HTTP server, if visitors take that way.
    pub fn terminate(&self) -> Option<&Terminate> {
        match &self.way {
            Way::Terminate(terminate) => Some(terminate),
            Way::Passthrough(_) => None,
        }
    }
}

/// The number of a tunnel of this process.
pub type TunnelId = u64;

/// One tunnel's way to [`Channels`].
#[derive(Debug)]
pub struct ChannelHost {
    id: TunnelId,
    channels: Arc<Channels>,
    signals: mpsc::UnboundedSender<(TunnelId, Signal)>,
}

impl ChannelHost {
    /// For the tunnel of that number; what the proxy says about it goes to `signals`.
    pub fn new(
        id: TunnelId,
        channels: Arc<Channels>,
        signals: mpsc::UnboundedSender<(TunnelId, Signal)>,
    ) -> Self {
        Self { id, channels, signals }
    }
}

impl Host for ChannelHost {
    type Stream = ChannelStream;
    type Arrival = Infallible;
    type Ticket = Option<IpAddr>;

    fn open(&mut self, visitor: Option<IpAddr>) -> Option<Arrived<ChannelStream, Option<IpAddr>>> {
        let channels = &*self.channels;
        if channels.refusing.load(Ordering::Relaxed) {
            channels.metrics.channels_refused.add(1);
            return None;
        }
        let opened = match &channels.way {
            Way::Passthrough(passthrough) => passthrough.open(visitor),
            Way::Terminate(terminate) => Some((terminate.open(visitor), Vec::new())),
        };
        let Some((stream, first)) = opened else {
            channels.metrics.channels_refused.add(1);
            return None;
        };
        channels.metrics.channels_opened.add(1);
        Some(Arrived { stream, first, ticket: visitor })
    }

    fn admit(
        &mut self,
        arrival: Infallible,
    ) -> Option<(Option<IpAddr>, Arrived<ChannelStream, Option<IpAddr>>)> {
        match arrival {}
    }

    fn finished(&mut self, stream: ChannelStream, visitor: Option<IpAddr>, end: ChannelEnd) {
        let channels = &*self.channels;
        channels.metrics.channels_closed.add(1);
        channels.metrics.bytes_from_visitors.add(end.from_peer);
        channels.metrics.bytes_to_visitors.add(end.to_peer);
        tracing::debug!(
            tunnel = self.id, visitor = ?visitor, why = ?end.why,
            bytes_in = end.from_peer, bytes_out = end.to_peer, lived = ?end.lived,
            "a visitor is gone"
        );
        if let Way::Passthrough(passthrough) = &channels.way {
            passthrough.finished(stream, &end);
        }
    }

    fn signal(&mut self, signal: Signal) {
        // Nobody hears it only when the process ends.
        let _ = self.signals.send((self.id, signal));
    }

    fn alive(&mut self, round_trip: Duration) {
        tracing::trace!(tunnel = self.id, ?round_trip, "the proxy answers");
    }
}
