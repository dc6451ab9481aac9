//! What the peer says: bytes in, whole frames or not, and what each of them means.

use std::{net::IpAddr, time::Instant};

use super::{Ended, Expect, Local, Multiplexer, Signal, UNIT_MAX, Violation};
use crate::{
    channel::ChannelKey,
    cipher::Role,
    flow_control::Verdict,
    frame::{self, ChannelId, Flow, HEADER_LEN, Header},
    outbox::Outbox,
    random::Random,
};

impl Multiplexer {
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
}
