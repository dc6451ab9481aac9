//! Many channels over one stream: bytes in, bytes and actions out.
//!
//! ```text
//!   peer's bytes --receive()--> Local: opened, data, closed, held, signal, alive
//!   open(), send_data(), close(), taken() --> Outbox --> peer
//!   tick(now), next_deadline(): the heartbeat
//! ```
//!
//! The core never asks for the time, never draws a random number of its own and never touches a socket.

mod receive;
mod send;
mod terms;

use std::time::Instant;

use crate::{
    channel::{ChannelKey, Channels},
    cipher::{CipherKind, Opener, Role, Sealer},
    frame::{HEADER_LEN, Header},
    heartbeat::{Beat, Heartbeat},
    outbox::Outbox,
    random::Random,
    version::ProtocolVersion,
};

pub use terms::{Counts, Ended, Local, Settings, Signal, TooManyChannels, Violation};

/// The longest unit that is opened whole: a header, or the address in NEW.
const UNIT_MAX: usize = 96 + 28;

#[derive(Clone, Copy, Debug)]
enum Expect {
    Header,
    /// The encrypted address of this NEW.
    Address(Header),
    /// So many bytes of a body, for this channel or to be passed over.
    Body {
        key: Option<ChannelKey>,
        left: u32,
    },
}

/// The multiplexer of one tunnel, after its handshake.
#[derive(Debug)]
pub struct Multiplexer {
    role: Role,
    peer: ProtocolVersion,
    sealer: Sealer,
    opener: Opener,
    settings: Settings,
    channels: Channels,
    heartbeat: Heartbeat,
    expect: Expect,
    /// The beginning of a unit whose end has not arrived.
    partial: [u8; UNIT_MAX],
    partial_len: usize,
    /// Bytes waiting in all channels.
    waiting: usize,
    counts: Counts,
}

impl Multiplexer {
    /// Takes over the ciphers where the handshake left them. `peer` is what the other side understands.
    pub fn new(
        role: Role,
        peer: ProtocolVersion,
        (sealer, opener): (Sealer, Opener),
        settings: Settings,
        now: Instant,
    ) -> Self {
        let heartbeat = Heartbeat::new(settings.heartbeat, now);
        Self {
            role,
            peer,
            sealer,
            opener,
            settings,
            channels: Channels::default(),
            heartbeat,
            expect: Expect::Header,
            partial: [0; UNIT_MAX],
            partial_len: 0,
            waiting: 0,
            counts: Counts::default(),
        }
    }

    /// Channels both sides know of.
    pub fn open_channels(&self) -> usize {
        self.channels.open_count()
    }

    /// What passed so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes that wait for readers, in all channels.
    pub const fn waiting_in_all(&self) -> usize {
        self.waiting
    }

    /// May bytes be sent for the channel: is it open, and not held by the peer?
    pub fn may_send(&self, key: ChannelKey) -> bool {
        self.channels.get(key).is_some_and(|channel| channel.open && !channel.held)
    }

    /// Have we asked the peer to stop sending for this channel?
    pub fn pauses(&self, key: ChannelKey) -> bool {
        self.channels.get(key).is_some_and(|channel| channel.valve.is_paused())
    }

    /// When [`tick`](Self::tick) wants to be called.
    pub fn next_deadline(&self) -> Instant {
        self.heartbeat.deadline()
    }

    /// Time has passed: asks the peer for a sign of life, or finds it dead.
    pub fn tick(
        &mut self,
        now: Instant,
        out: &mut Outbox,
        random: &mut impl Random,
    ) -> Result<(), Violation> {
        match self.heartbeat.beat(now) {
            Beat::Wait => Ok(()),
            Beat::Dead => Err(Violation::Silent),
            Beat::Ask => {
                self.ask(now, out, random);
                Ok(())
            }
        }
    }

    pub(super) fn forget(&mut self, key: ChannelKey) -> Option<crate::channel::Channel> {
        let channel = self.channels.remove(key)?;
        self.waiting = self.waiting.saturating_sub(channel.waiting.len());
        self.settings.budget.give_back(channel.waiting.len());
        Some(channel)
    }
}

impl Drop for Multiplexer {
    fn drop(&mut self) {
        self.settings.budget.give_back(self.waiting);
    }
}

/// Bytes a frame's header takes with this cipher.
pub const fn header_len(cipher: CipherKind) -> usize {
    HEADER_LEN + cipher.overhead()
}
