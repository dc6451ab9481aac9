//! Many channels over one stream: bytes in, bytes and actions out.
//!
//! ```text
//!   peer's bytes --receive()--> Local: opened, data, closed, held, signal, alive
//!   open(), send_data(), close(), taken() --> Outbox --> peer
//!   tick(now), next_deadline(): the heartbeat
//! ```
//!
//! The core never asks for the time, never draws a random number of its own and never touches a socket.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    channel::{ChannelKey, Channels},
    cipher::{BadUnit, CipherKind, Opener, Role, Sealer},
    flow_control::{Budget, Marks, Verdict},
    frame::{self, ChannelId, Flow, HEADER_LEN, Header},
    heartbeat::{Beat, Heartbeat, HeartbeatSettings},
    outbox::Outbox,
    random::Random,
    version::ProtocolVersion,
};

/// The longest unit that is opened whole: a header, or the address in NEW.
const UNIT_MAX: usize = 96 + 28;

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
    const fn words(self) -> &'static [u8] {
        match self {
            Self::GoAway => b"goaway",
            Self::Conflict => b"conflict",
            Self::Latchkey => b"latchkey",
        }
    }

    fn from_words(extra: &[u8]) -> Option<Self> {
        [Self::GoAway, Self::Conflict, Self::Latchkey]
            .into_iter()
            .find(|signal| extra.starts_with(signal.words()))
    }
}

/// Why a channel ended without either end asking for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it. What had arrived before may still wait to be [`taken`](Multiplexer::taken).
    ByPeer,
    /// Its reader was too slow: its queue reached the cap, or had to make way for others. A channel
    /// that the peer closed before can still end so, while its rest waits.
    Overflow,
}

/// What the embedding side does with what the peer says.
pub trait Local {
    /// The peer opened a channel for a visitor. False refuses it.
    fn opened(&mut self, key: ChannelKey, visitor: Option<IpAddr>) -> bool;
    /// Bytes came. Returns how many of them were passed on at once; the rest [waits](Multiplexer::waiting)
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

    /// Handles bytes of the peer, whole frames or not. They are decrypted in place.
    pub fn receive(
        &mut self,
        mut input: &mut [u8],
        now: Instant,
        out: &mut Outbox,
        random: &mut impl Random,
        local: &mut impl Local,
    ) -> Result<(), Violation> {
        self.heartbeat.heard(now);
        while !input.is_empty() {
            if let Expect::Body { key, left } = self.expect {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let (body, rest) = std::mem::take(&mut input).split_at_mut(here);
                input = rest;
                let left = left.saturating_sub(u32::try_from(here).unwrap_or(u32::MAX));
                self.expect = if left == 0 { Expect::Header } else { Expect::Body { key, left } };
                if let Some(key) = key {
                    self.deliver(key, body, out, random, local)?;
                }
                continue;
            }
            let need = self.unit_len();
            if self.partial_len == 0 && input.len() >= need {
                let (unit, rest) = std::mem::take(&mut input).split_at_mut(need);
                input = rest;
                self.unit(unit, now, out, random, local)?;
                continue;
            }
            let missing = need.saturating_sub(self.partial_len).min(input.len());
            let (part, rest) = std::mem::take(&mut input).split_at_mut(missing);
            input = rest;
            let filled = self.partial_len + part.len();
            if let Some(place) = self.partial.get_mut(self.partial_len..filled) {
                place.copy_from_slice(part);
            }
            self.partial_len = filled;
            if filled == need {
                let mut whole = self.partial;
                self.partial_len = 0;
                self.unit(whole.get_mut(..need).unwrap_or_default(), now, out, random, local)?;
            }
        }
        Ok(())
    }

    /// Bytes of the unit that comes next.
    fn unit_len(&self) -> usize {
        let plain = match self.expect {
            Expect::Address(header) => header.size as usize,
            _ => HEADER_LEN,
        };
        plain + self.opener.overhead()
    }

    fn unit(
        &mut self,
        unit: &mut [u8],
        now: Instant,
        out: &mut Outbox,
        random: &mut impl Random,
        local: &mut impl Local,
    ) -> Result<(), Violation> {
        let plain: &[u8] = self.opener.open(unit)?;
        if let Expect::Address(header) = self.expect {
            self.expect = Expect::Header;
            // A truncated address is a malformed request, not a visitor from nowhere.
            if let Ok(visitor) = frame::address_from_body(plain) {
                return self.opened(header.channel, visitor, out, random, local);
            }
            return self.control(header.channel, Flow::Close, &[], out, random);
        }
        let header = Header::decode(plain.try_into().map_err(|_| Violation::BadUnit)?);
        let key = match header.flow {
            Flow::New if self.peer.encrypts_address() && header.size > 0 => {
                if header.size as usize + self.opener.overhead() > UNIT_MAX {
                    return Err(Violation::AddressTooLong(header.size));
                }
                self.expect = Expect::Address(header);
                return Ok(());
            }
            Flow::New if self.peer.encrypts_address() => {
                self.control(header.channel, Flow::Close, &[], out, random)?;
                None
            }
            Flow::New => {
                let visitor = frame::address_from_extra(&header.extra);
                self.opened(header.channel, visitor, out, random, local)?;
                None
            }
            Flow::Data => self.channels.find(&header.channel),
            Flow::Close => {
                self.closed_by_peer(header.channel, local);
                None
            }
            Flow::Ping => {
                self.ping(&header, now, out, random, local)?;
                None
            }
            Flow::Pause | Flow::Resume => {
                let held = header.flow == Flow::Pause;
                self.counts.pauses_received += u64::from(held);
                if let Some(key) = self.channels.find(&header.channel)
                    && let Some(channel) = self.channels.get_mut(key)
                    && channel.held != held
                {
                    channel.held = held;
                    local.held(key, held);
                }
                None
            }
            Flow::Unknown(_) => None,
        };
        if header.size > 0 {
            self.expect = Expect::Body { key, left: header.size };
        }
        Ok(())
    }

    fn opened(
        &mut self,
        id: ChannelId,
        visitor: Option<IpAddr>,
        out: &mut Outbox,
        random: &mut impl Random,
        local: &mut impl Local,
    ) -> Result<(), Violation> {
        // Only a server opens channels: a stock server ignores a NEW, and so do we.
        if self.role == Role::Server {
            return Ok(());
        }
        // One that the peer closed counts until its reader is done: else opening and closing would cost us without end.
        let accepted = self.channels.present() < self.settings.max_channels
            && self.channels.insert(id).is_some_and(|key| {
                let accepted = local.opened(key, visitor);
                self.counts.channels += u64::from(accepted);
                if !accepted {
                    self.channels.remove(key);
                }
                accepted
            });
        if accepted || self.channels.find(&id).is_some() {
            return Ok(());
        }
        self.control(id, Flow::Close, &[], out, random)
    }

    fn deliver(
        &mut self,
        key: ChannelKey,
        bytes: &[u8],
        out: &mut Outbox,
        random: &mut impl Random,
        local: &mut impl Local,
    ) -> Result<(), Violation> {
        let Some(channel) = self.channels.get_mut(key).filter(|channel| channel.open) else {
            return Ok(());
        };
        let taken = if channel.waiting.len() == 0 { local.data(key, bytes) } else { 0 };
        let rest = bytes.get(taken..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        if !self.make_room(key, rest.len(), out, random, local)? {
            return self.reset(key, out, random, local);
        }
        let marks = &self.settings.marks;
        let Some(channel) = self.channels.get_mut(key) else { return Ok(()) };
        self.waiting += rest.len();
        channel.waiting.push(rest);
        match channel.valve.judge(channel.waiting.len(), self.peer, marks) {
            Verdict::Nothing | Verdict::Resume => Ok(()),
            Verdict::Pause => {
                self.counts.pauses_sent += 1;
                let id = channel.id;
                self.control(id, Flow::Pause, &[], out, random)
            }
            Verdict::Reset => self.reset(key, out, random, local),
        }
    }

    /// Takes `bytes` of the budget for a channel. Where the tunnel or the process is full, the channel
    /// in which most waits makes way; false: that is this one.
    fn make_room(
        &mut self,
        key: ChannelKey,
        bytes: usize,
        out: &mut Outbox,
        random: &mut impl Random,
        local: &mut impl Local,
    ) -> Result<bool, Violation> {
        loop {
            let fits = self.waiting + bytes <= self.settings.marks.tunnel_reset_at;
            if fits && self.settings.budget.take(bytes) {
                return Ok(true);
            }
            match self.channels.fullest() {
                Some(fullest) if fullest != key => self.reset(fullest, out, random, local)?,
                _ => return Ok(false),
            }
        }
    }

    /// Cuts off a channel whose reader is too slow.
    fn reset(
        &mut self,
        key: ChannelKey,
        out: &mut Outbox,
        random: &mut impl Random,
        local: &mut impl Local,
    ) -> Result<(), Violation> {
        let Some(channel) = self.forget(key) else { return Ok(()) };
        self.counts.overflows += 1;
        local.closed(key, Ended::Overflow, true);
        if channel.open { self.control(channel.id, Flow::Close, &[], out, random) } else { Ok(()) }
    }

    fn closed_by_peer(&mut self, id: ChannelId, local: &mut impl Local) {
        let Some(key) = self.channels.find(&id) else { return };
        let drained = self.channels.get(key).is_none_or(|channel| channel.waiting.len() == 0);
        if drained {
            self.forget(key);
        } else {
            self.channels.hang_up(key);
        }
        local.closed(key, Ended::ByPeer, drained);
    }

    fn ping(
        &mut self,
        header: &Header,
        now: Instant,
        out: &mut Outbox,
        random: &mut impl Random,
        local: &mut impl Local,
    ) -> Result<(), Violation> {
        if header.extra.starts_with(b"pong") {
            if let Some(round_trip) = self.heartbeat.answered(header.channel, now) {
                local.alive(round_trip);
            }
            return Ok(());
        }
        if let Some(signal) = Signal::from_words(&header.extra) {
            local.signal(signal);
        }
        self.control(header.channel, Flow::Ping, b"pong", out, random)
    }

    /// Opens a channel for a visitor.
    pub fn open(
        &mut self,
        visitor: Option<IpAddr>,
        out: &mut Outbox,
        random: &mut impl Random,
    ) -> Result<ChannelKey, TooManyChannels> {
        if self.channels.present() >= self.settings.max_channels || out.len() > self.settings.max_backlog {
            return Err(TooManyChannels);
        }
        let id = ChannelId(random.array());
        let key = self.channels.insert(id).ok_or(TooManyChannels)?;
        let sent = if self.peer.encrypts_address() {
            let (body, len) = frame::address_body(visitor, random);
            let body = body.get(..len).unwrap_or_default();
            self.header(id, Flow::New, len, &[], out, random)
                .and_then(|()| seal_onto(&mut self.sealer, body, out, random))
        } else {
            let words = frame::address_in_extra(visitor);
            self.header(id, Flow::New, 0, &words, out, random)
        };
        if sent.is_err() {
            self.forget(key);
            return Err(TooManyChannels);
        }
        self.counts.channels += 1;
        Ok(key)
    }

    /// Sends what `read` puts into the buffer it is given, of `max` bytes at the most. The first part
    /// of its answer is how many bytes it put there; none means that no frame is sent.
    pub fn send_data<T>(
        &mut self,
        key: ChannelKey,
        max: usize,
        out: &mut Outbox,
        random: &mut impl Random,
        read: impl FnOnce(&mut [u8]) -> (usize, T),
    ) -> T {
        let unit = HEADER_LEN + self.sealer.overhead();
        let max = max.min(u32::MAX as usize);
        let (count, answer) = {
            let place = out.tail(unit + max);
            read(place.get_mut(unit..).unwrap_or_default())
        };
        let count = count.min(max);
        if count > 0
            && let Some(channel) = self.channels.get(key).filter(|channel| channel.open)
        {
            let id = channel.id;
            // Fails for no length a header can have.
            if self.header(id, Flow::Data, count, &[], out, random).is_ok() {
                out.commit(count);
            }
        }
        answer
    }

    /// Ends a channel from our side: the peer is told, what waits is dropped.
    pub fn close(&mut self, key: ChannelKey, out: &mut Outbox, random: &mut impl Random) {
        if let Some(channel) = self.forget(key)
            && channel.open
        {
            // Not held back by a backlog: a CLOSE or a RESUME that is never said would strand the channel at the peer.
            let _ = self.header(channel.id, Flow::Close, 0, &[], out, random);
        }
    }

    /// What waits for the channel's reader, its first run of it.
    pub fn waiting(&self, key: ChannelKey) -> &[u8] {
        self.channels.get(key).map(|channel| channel.waiting.first()).unwrap_or_default()
    }

    /// The reader took `count` bytes of what waits. True: that was all, and the channel is over.
    pub fn taken(
        &mut self,
        key: ChannelKey,
        count: usize,
        out: &mut Outbox,
        random: &mut impl Random,
    ) -> bool {
        let Some(channel) = self.channels.get_mut(key) else { return true };
        let freed = channel.waiting.take(count);
        self.waiting = self.waiting.saturating_sub(freed);
        self.settings.budget.give_back(freed);
        if !channel.open {
            let over = channel.waiting.len() == 0;
            if over {
                self.forget(key);
            }
            return over;
        }
        let id = channel.id;
        if channel.valve.judge(channel.waiting.len(), self.peer, &self.settings.marks) == Verdict::Resume {
            let _ = self.header(id, Flow::Resume, 0, &[], out, random);
        }
        false
    }

    /// Have we asked the peer to stop sending for this channel?
    pub fn pauses(&self, key: ChannelKey) -> bool {
        self.channels.get(key).is_some_and(|channel| channel.valve.is_paused())
    }

    /// Says a word of ours.
    pub fn signal(&mut self, signal: Signal, out: &mut Outbox, random: &mut impl Random) {
        let id = ChannelId(random.array());
        let _ = self.header(id, Flow::Ping, 0, signal.words(), out, random);
    }

    /// Asks for a sign of life now, on top of the schedule.
    pub fn ask(&mut self, now: Instant, out: &mut Outbox, random: &mut impl Random) {
        let id = ChannelId(random.array());
        self.heartbeat.asked(id, now);
        let _ = self.header(id, Flow::Ping, 0, b"ping", out, random);
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

    fn forget(&mut self, key: ChannelKey) -> Option<crate::channel::Channel> {
        let channel = self.channels.remove(key)?;
        self.waiting = self.waiting.saturating_sub(channel.waiting.len());
        self.settings.budget.give_back(channel.waiting.len());
        Some(channel)
    }

    /// An answer without a body, if the peer reads what we send at all.
    fn control(
        &mut self,
        id: ChannelId,
        flow: Flow,
        words: &[u8],
        out: &mut Outbox,
        random: &mut impl Random,
    ) -> Result<(), Violation> {
        if out.len() > self.settings.max_backlog {
            return Err(Violation::Backlog);
        }
        self.header(id, flow, 0, words, out, random)?;
        Ok(())
    }

    fn header(
        &mut self,
        channel: ChannelId,
        flow: Flow,
        size: usize,
        words: &[u8],
        out: &mut Outbox,
        random: &mut impl Random,
    ) -> Result<(), BadUnit> {
        let size = u32::try_from(size).map_err(|_| BadUnit)?;
        let header = Header { channel, flow, size, extra: frame::extra(words, random) };
        seal_onto(&mut self.sealer, &header.encode(), out, random)
    }
}

impl Drop for Multiplexer {
    fn drop(&mut self) {
        self.settings.budget.give_back(self.waiting);
    }
}

fn seal_onto(
    sealer: &mut Sealer,
    plain: &[u8],
    out: &mut Outbox,
    random: &mut impl Random,
) -> Result<(), BadUnit> {
    let (prefix, len) = (sealer.prefix(), plain.len() + sealer.overhead());
    let unit = out.tail(len);
    unit.get_mut(prefix..prefix + plain.len()).ok_or(BadUnit)?.copy_from_slice(plain);
    sealer.seal(unit, random)?;
    out.commit(len);
    Ok(())
}

/// Bytes a frame's header takes with this cipher.
pub const fn header_len(cipher: CipherKind) -> usize {
    HEADER_LEN + cipher.overhead()
}
