//! The words that a multiplexer and whoever embeds it use with each other.

use std::{net::IpAddr, time::Duration};

use crate::{
    channel::ChannelKey,
    cipher::BadUnit,
    flow_control::{Budget, Marks},
    heartbeat::HeartbeatSettings,
};

/// What a peer may cost, and how it is watched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How much may wait in a channel and in the tunnel.
    pub marks: Marks,
    /// How much may wait in all tunnels of the process.
    pub budget: Budget,
    /// Channels at one time, with those that the peer closed and whose reader is not done.
    pub max_channels: usize,
    /// Answers that may wait for a peer that asks and never reads; no channel is opened beyond it either.
    pub max_backlog: usize,
    /// How the peer is asked for signs of life.
    pub heartbeat: HeartbeatSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            marks: Marks::default(),
            budget: Budget::default(),
            max_channels: 4096,
            max_backlog: 4 << 20,
            heartbeat: HeartbeatSettings::default(),
        }
    }
}

/// Words in a PING that a stock peer answers with a pong and otherwise ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// From a proxy: open a second tunnel, this one drains. From an agent: send no new visitors.
    GoAway,
    /// Another agent serves the instance: wait before you come back.
    Conflict,
    /// From an agent, at the start: it understands these words.
    Latchkey,
}

impl Signal {
    pub(super) const fn words(self) -> &'static [u8] {
        match self {
            Self::GoAway => b"goaway",
            Self::Conflict => b"conflict",
            Self::Latchkey => b"latchkey",
        }
    }

    pub(super) fn from_words(extra: &[u8]) -> Option<Self> {
        [Self::GoAway, Self::Conflict, Self::Latchkey]
            .into_iter()
            .find(|signal| extra.starts_with(signal.words()))
    }
}

/// Why a channel ended without either end asking for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it. What had arrived before may still wait to be [`taken`](super::Multiplexer::taken).
    ByPeer,
    /// Its reader was too slow: its queue reached the cap, or had to make way for others. A channel
    /// that the peer closed before can still end so, while its rest waits.
    Overflow,
}

/// What the embedding side does with what the peer says.
pub trait Local {
    /// The peer opened a channel for a visitor. False refuses it.
    fn opened(&mut self, key: ChannelKey, visitor: Option<IpAddr>) -> bool;
    /// Bytes came. Returns how many of them were passed on at once; the rest [waits](super::Multiplexer::waiting)
    /// in the channel.
    /// Not called while older bytes wait.
    fn data(&mut self, key: ChannelKey, bytes: &[u8]) -> usize;
    /// The channel ended. With `drained`, nothing waits in it and its key is void.
    fn closed(&mut self, key: ChannelKey, ended: Ended, drained: bool);
    /// The peer asked us to stop sending for the channel (`true`), or to go on.
    fn held(&mut self, key: ChannelKey, held: bool);
    /// The peer answered our question; how long that took.
    fn alive(&mut self, round_trip: Duration);
    /// The peer said a word of ours.
    fn signal(&mut self, signal: Signal);
}

/// What a peer did that ends its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A unit did not authenticate.
    #[error("a unit did not decrypt")]
    BadUnit,
    /// The body of NEW is longer than any address.
    #[error("a NEW frame has a body of {0} bytes, more than any address has")]
    AddressTooLong(u32),
    /// It asked on without reading the answers.
    #[error("the peer asks without reading the answers")]
    Backlog,
    /// It did not answer in time.
    #[error("no pong in time")]
    Silent,
}

impl From<BadUnit> for Violation {
    fn from(_: BadUnit) -> Self {
        Self::BadUnit
    }
}

/// Why no channel could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tunnel carries as many channels as it may")]
pub struct TooManyChannels;

/// Counts of what passed; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// PAUSE frames we sent.
    pub pauses_sent: u64,
    /// PAUSE frames the peer sent.
    pub pauses_received: u64,
    /// Channels reset because their queue was full.
    pub overflows: u64,
    /// Channels that were opened.
    pub channels: u64,
}
