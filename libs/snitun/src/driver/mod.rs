//! The only place with sockets: one tokio future that owns a tunnel and every channel of it.
//!
//! There is no task, no queue and no lock between a visitor's socket and the tunnel's. A turn of the
//! future reads the tunnel, writes straight into the sockets of the channels, reads those that are
//! ready straight into the outbox, and sends the outbox with one write.

mod desk;
mod handle;
mod opening;
mod tunnel;

use std::{
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    handle::{Facts, TunnelHandle},
    opening::{OpeningError, client_handshake, server_handshake},
    tunnel::Tunnel,
};
pub use crate::multiplexer::Signal;
use crate::{
    multiplexer::{Settings, Violation},
    random::Random,
};

/// A visitor whose stream the tunnel's program made or took over.
#[derive(Debug)]
pub struct Arrived<S, T> {
    /// Where its bytes come from and go to.
    pub stream: S,
    /// Bytes that go first: on the side of the agent to the stream (a PROXY header), on the side of
    /// the proxy to the peer (what was read of the visitor already).
    pub first: Vec<u8>,
    /// Anything the program wants back when the channel ends.
    pub ticket: T,
}

/// What the program that embeds a tunnel decides.
pub trait Host: Send {
    /// The far end of a channel.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;
    /// A visitor on its way from another thread; see [`TunnelHandle::send_visitor`].
    type Arrival: Send;
    /// Handed back at the end of a channel.
    type Ticket: Send;

    /// The peer opened a channel (an agent's side). `None` refuses it. Must not wait: a socket that is
    /// still connecting will do.
    fn open(&mut self, visitor: Option<IpAddr>) -> Option<Arrived<Self::Stream, Self::Ticket>>;

    /// A visitor came by the handle (a proxy's side); runs where the tunnel runs. `None` drops it.
    #[expect(clippy::type_complexity, reason = "an alias would hide what the program has to give")]
    fn admit(
        &mut self,
        arrival: Self::Arrival,
    ) -> Option<(Option<IpAddr>, Arrived<Self::Stream, Self::Ticket>)>;

    /// A channel ended. What it had to say is written; the stream is the program's to close.
    fn finished(&mut self, stream: Self::Stream, ticket: Self::Ticket, end: ChannelEnd);

    /// A visitor came by the handle when the tunnel had just ended.
    fn missed(&mut self, arrival: Self::Arrival) {
        drop(arrival);
    }

    /// The peer said a word of ours.
    fn signal(&mut self, signal: Signal);

    /// The peer answered a question.
    fn alive(&mut self, round_trip: Duration);
}

/// Why a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Our stream ended.
    LocalEnd,
    /// Our stream failed.
    LocalError(io::ErrorKind),
    /// The peer closed it, and all it had sent is delivered.
    Peer,
    /// Its reader was too slow: more waited than may.
    Overflow,
    /// Nothing moved for too long.
    Idle,
    /// The tunnel ended under it.
    TunnelEnded,
    /// The tunnel carries as many channels as it may.
    TooMany,
}

/// How a channel ended, and what it carried.
#[derive(Clone, Copy, Debug)]
pub struct ChannelEnd {
    /// Why it ended.
    pub why: CloseReason,
    /// Bytes from our stream to the peer.
    pub to_peer: u64,
    /// Bytes from the peer to our stream.
    pub from_peer: u64,
    /// From its opening to its end.
    pub lived: Duration,
}

/// Why a program ended a tunnel itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// A newer session of the same instance took its place.
    Replaced,
    /// Another agent serves the instance.
    Conflict,
    /// It was told to drain, and no channel is left.
    Drained,
    /// The route does not allow it any more.
    Revoked,
    /// The process ends.
    Stopping,
}

/// Why a tunnel ended.
#[derive(Debug)]
pub enum TunnelEnd {
    /// The peer closed the connection.
    PeerClosed,
    /// The connection failed.
    Io(io::Error),
    /// The peer broke the protocol, or fell silent.
    Violation(Violation),
    /// We did.
    Asked(Asked),
}

/// Settings of a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelSettings {
    /// The protocol's own.
    pub protocol: Settings,
    /// A channel on which nothing moved for so long is closed.
    pub idle: Duration,
    /// A tunnel that is asked to end gets this long to send what it still has.
    pub farewell: Duration,
}

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            protocol: Settings::default(),
            idle: Duration::from_hours(1),
            farewell: Duration::from_secs(1),
        }
    }
}

/// The thread's cryptographic generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadRandom;

impl Random for ThreadRandom {
    fn fill(&mut self, out: &mut [u8]) {
        rand::rng().fill_bytes(out);
    }
}

/// How often channels are looked over for idleness.
fn sweep_interval(idle: Duration) -> Duration {
    (idle / 4).clamp(Duration::from_millis(50), Duration::from_secs(15))
}

fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now)
}
