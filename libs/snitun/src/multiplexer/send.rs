//! What we say: frames into the outbox, sealed as they are written.

use std::{net::IpAddr, time::Instant};

use super::{Multiplexer, Signal, TooManyChannels, Violation};
use crate::{
    channel::ChannelKey,
    cipher::{BadUnit, Sealer},
    flow_control::Verdict,
    frame::{self, ChannelId, Flow, HEADER_LEN, Header},
    outbox::Outbox,
    random::Random,
};

impl Multiplexer {
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

    /// An answer without a body, if the peer reads what we send at all.
    pub(super) fn control(
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
