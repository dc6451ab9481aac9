//! The reference model: what each channel was told and what it has passed on, and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use snitun::{
    channel::ChannelKey,
    multiplexer::{Ended, Local, Signal},
};

use crate::chance::Chance;

pub(crate) const SERVER: usize = 0;
pub(crate) const CLIENT: usize = 1;

/// Where one end of a channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer's NEW has not come.
    Unborn,
    Open,
    /// The peer closed it; something still waits here.
    HungUp,
    /// Its key is void.
    Over,
}

/// One channel: index 0 of each pair is the server's.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) visitor: Option<IpAddr>,
    pub(crate) keys: [Option<ChannelKey>; 2],
    pub(crate) ends: [End; 2],
    /// Has the peer asked this end to stop?
    pub(crate) held: [bool; 2],
    /// Bytes written at this end.
    pub(crate) sent: [usize; 2],
    /// Bytes that this end's reader has.
    pub(crate) got: [usize; 2],
    /// This end is gone, by its own choice or by overflow: what still comes for it is lost by right.
    pub(crate) closed: [bool; 2],
    /// Of 100 deliveries, how many does this end's reader take at least in part?
    pub(crate) appetite: [usize; 2],
}

/// A channel's bytes: a pattern whose period is prime, begun at a place of its own for each direction.
pub(crate) struct Pattern(Vec<u8>);

const PERIOD: usize = 65_521;

impl Pattern {
    pub(crate) fn new() -> Self {
        use snitun::random::Random;
        let mut bytes = vec![0; PERIOD];
        Chance::new(1).fill(&mut bytes);
        Self(bytes)
    }

    /// The bytes from `at` on of what `sender` says on the channel, as many as there are in one run.
    pub(crate) fn run(&self, channel: usize, sender: usize, at: usize) -> &[u8] {
        &self.0[(channel * 7919 + sender * 32_749 + at) % PERIOD..]
    }

    pub(crate) fn write(&self, channel: usize, sender: usize, mut at: usize, mut out: &mut [u8]) {
        while !out.is_empty() {
            let run = self.run(channel, sender, at);
            let here = run.len().min(out.len());
            let (now, rest) = out.split_at_mut(here);
            now.copy_from_slice(&run[..here]);
            (out, at) = (rest, at + here);
        }
    }

    pub(crate) fn check(&self, channel: usize, sender: usize, mut at: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let run = self.run(channel, sender, at);
            let here = run.len().min(bytes.len());
            assert!(run[..here] == bytes[..here], "channel {channel}: foreign bytes at {at} from {sender}");
            (bytes, at) = (&bytes[here..], at + here);
        }
    }
}

/// The visitor of the n-th channel; no two are alike, but for those that nobody knows.
pub(crate) fn visitor(index: usize, v6: bool, known: bool) -> Option<IpAddr> {
    let number = u32::try_from(index).unwrap();
    let v4 = Ipv4Addr::from_bits(0x0a00_0000 | number);
    known.then(|| {
        if v6 { Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number)).into() } else { v4.into() }
    })
}

/// What both ends should know, together.
#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) channels: Vec<Channel>,
    /// Opened by the server, not yet seen by the client.
    pub(crate) on_the_way: std::collections::VecDeque<usize>,
    /// Signals each end has said and the other has not heard.
    pub(crate) signals: [std::collections::VecDeque<Signal>; 2],
    /// The question of each end that counts.
    pub(crate) asked: [Option<std::time::Instant>; 2],
    pub(crate) overflows: [u64; 2],
    /// Channels the client's multiplexer refused by itself.
    pub(crate) refused_unseen: u64,
}

impl Reference {
    pub(crate) fn find(&self, side: usize, key: ChannelKey) -> usize {
        let found = self.channels.iter().rposition(|channel| channel.keys[side] == Some(key));
        found.unwrap_or_else(|| panic!("side {side} speaks of a key it never gave: {key:?}"))
    }

    /// Everything the peer said before it closed is here, unless this end gave up first.
    pub(crate) fn ended(&mut self, side: usize, index: usize) {
        let channel = &mut self.channels[index];
        let (got, sent) = (channel.got[side], channel.sent[1 - side]);
        assert_eq!(got, sent, "channel {index} ended at side {side} before all had come");
        channel.ends[side] = End::Over;
    }
}

/// What one side's program does with what the multiplexer tells it.
pub(crate) struct Program<'a> {
    pub(crate) side: usize,
    pub(crate) reference: &'a mut Reference,
    pub(crate) chance: &'a mut Chance,
    pub(crate) pattern: &'a Pattern,
    pub(crate) refuses: usize,
    pub(crate) now: std::time::Instant,
}

impl Local for Program<'_> {
    fn opened(&mut self, key: ChannelKey, visitor: Option<IpAddr>) -> bool {
        assert_eq!(self.side, CLIENT, "only a server opens channels");
        let index = loop {
            let next = self.reference.on_the_way.pop_front().expect("a NEW that nobody sent");
            let channel = &mut self.reference.channels[next];
            if channel.visitor == visitor {
                break next;
            }
            (channel.ends[CLIENT], channel.closed[CLIENT]) = (End::Over, true);
            self.reference.refused_unseen += 1;
        };
        let channel = &mut self.reference.channels[index];
        let refused = self.chance.percent(self.refuses);
        assert_eq!(channel.ends[CLIENT], End::Unborn);
        channel.keys[CLIENT] = Some(key);
        channel.ends[CLIENT] = if refused { End::Over } else { End::Open };
        channel.closed[CLIENT] = refused;
        !refused
    }

    fn data(&mut self, key: ChannelKey, bytes: &[u8]) -> usize {
        let index = self.reference.find(self.side, key);
        let channel = &mut self.reference.channels[index];
        assert_eq!(channel.ends[self.side], End::Open, "bytes for a channel that is not open");
        let at = channel.got[self.side];
        assert!(at + bytes.len() <= channel.sent[1 - self.side], "more came than was sent");
        self.pattern.check(index, 1 - self.side, at, bytes);
        let hungry = self.chance.percent(channel.appetite[self.side]);
        let taken = match (hungry, self.chance.percent(60)) {
            (true, true) => bytes.len(),
            (true, false) => self.chance.below(bytes.len() + 1),
            (false, _) => 0,
        };
        channel.got[self.side] += taken;
        taken
    }

    fn closed(&mut self, key: ChannelKey, ended: Ended, drained: bool) {
        let index = self.reference.find(self.side, key);
        let channel = &mut self.reference.channels[index];
        // What a peer left behind may still have to make way for others.
        let may_end = [End::Open, End::HungUp];
        let may_end = if ended == Ended::Overflow { &may_end[..] } else { &may_end[..1] };
        assert!(may_end.contains(&channel.ends[self.side]), "closed twice");
        match ended {
            Ended::Overflow => {
                assert!(drained, "what overflowed is dropped");
                (channel.ends[self.side], channel.closed[self.side]) = (End::Over, true);
                self.reference.overflows[self.side] += 1;
            }
            Ended::ByPeer => {
                if channel.ends[CLIENT] == End::Unborn {
                    (channel.ends[CLIENT], channel.closed[CLIENT]) = (End::Over, true);
                    self.reference.refused_unseen += 1;
                }
                let channel = &mut self.reference.channels[index];
                assert!(channel.closed[1 - self.side], "a CLOSE that nobody sent");
                channel.ends[self.side] = End::HungUp;
                if drained {
                    self.reference.ended(self.side, index);
                }
            }
        }
    }

    fn held(&mut self, key: ChannelKey, held: bool) {
        let index = self.reference.find(self.side, key);
        let channel = &mut self.reference.channels[index];
        assert!(channel.held[self.side] != held, "told twice");
        channel.held[self.side] = held;
    }

    fn alive(&mut self, round_trip: std::time::Duration) {
        let asked = self.reference.asked[self.side].take().expect("an answer without a question");
        assert_eq!(round_trip, self.now - asked);
    }

    fn signal(&mut self, signal: Signal) {
        let said = self.reference.signals[1 - self.side].pop_front();
        assert_eq!(said, Some(signal), "signals come in order");
    }
}
