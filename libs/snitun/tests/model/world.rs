//! Two multiplexers, two pipes, and a schedule that chance writes.

mod ending;

use std::time::{Duration, Instant};

use snitun::{
    cipher::{AesIv, AesKey, CipherKind, Role, pair},
    flow_control::{Budget, Marks},
    heartbeat::HeartbeatSettings,
    multiplexer::{Multiplexer, Settings, Signal, Violation},
    outbox::Outbox,
    version::ProtocolVersion,
};

use crate::{
    chance::Chance,
    reference::{CLIENT, Channel, End, Pattern, Program, Reference, SERVER, visitor},
    wire::{Ear, Pipe},
};

/// The versions the two may lawfully believe of each other: what the server knows of the client, and the reverse.
const BELIEFS: [(ProtocolVersion, ProtocolVersion); 5] = {
    use ProtocolVersion::{V0, V1, V2};
    [(V0, V0), (V0, V1), (V1, V0), (V1, V1), (V2, V2)]
};
/// An application writes no more while so much waits to be sent, as the driver does.
const OUTBOX_FULL: usize = 48 << 10;
const LARGEST_WRITE: usize = 24 << 10;
const PATIENCE: Duration = Duration::from_secs(25);

struct Side {
    mux: Multiplexer,
    out: Outbox,
    /// What it believes of the other.
    peer: ProtocolVersion,
}

/// How a schedule ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Settled,
    Lost,
    Silent,
}

/// What happened in a schedule; summed up, so that a quiet model cannot pass for a good one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) channels: u64,
    pub(crate) pauses: u64,
    pub(crate) overflows: u64,
    pub(crate) bytes: u64,
    pub(crate) ended_by_client: u64,
    pub(crate) lost: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.channels += other.channels;
        self.pauses += other.pauses;
        self.overflows += other.overflows;
        self.bytes += other.bytes;
        self.ended_by_client += other.ended_by_client;
        self.lost += other.lost;
    }
}

pub(crate) struct World<'a> {
    chance: Chance,
    pattern: &'a Pattern,
    sides: [Side; 2],
    /// From each side to the other.
    pipes: [Pipe; 2],
    reference: Reference,
    marks: Marks,
    budget: Budget,
    budget_cap: usize,
    max_channels: usize,
    refuses: usize,
    /// Marks so wide apart that an obedient peer never overflows them.
    roomy: bool,
    cuts: bool,
    anonymous: bool,
    most_present: [usize; 2],
    now: Instant,
}

impl<'a> World<'a> {
    pub(crate) fn new(seed: u64, start: Instant, pattern: &'a Pattern) -> Self {
        let mut chance = Chance::new(seed);
        let cipher = chance.pick(&CipherKind::ALL);
        let (of_client, of_server) = chance.pick(&BELIEFS);
        let roomy = chance.percent(60);
        let pause_at = chance.pick(&[1, 512, 4 << 10, 16 << 10]);
        let marks = Marks {
            pause_at,
            resume_at: pause_at / chance.pick(&[1, 2, 4, 100]),
            reset_at: if roomy { 1 << 20 } else { pause_at + chance.below(64 << 10) },
            tunnel_reset_at: if roomy { 64 << 20 } else { chance.within(16 << 10..256 << 10) },
        };
        let budget_cap =
            if roomy || chance.percent(50) { 256 << 20 } else { chance.within(8 << 10..128 << 10) };
        let budget = Budget::new(budget_cap);
        let max_channels = chance.pick(&[3, 6, 64]);
        let settings = Settings {
            marks,
            budget: budget.clone(),
            max_channels,
            max_backlog: 4 << 20,
            heartbeat: HeartbeatSettings {
                every: Duration::from_secs(30),
                only_when_silent: chance.percent(30),
                patience: PATIENCE,
            },
        };
        let (key, iv) = (AesKey([7; 32]), AesIv([9; 16]));
        let mut side = |role, peer| {
            let ciphers = pair(cipher, &key, &iv, role, &mut chance);
            let mux = Multiplexer::new(role, peer, ciphers, settings.clone(), start);
            Side { mux, out: Outbox::default(), peer }
        };
        let sides = [side(Role::Server, of_client), side(Role::Client, of_server)];
        let mut pipe = |listener, receiver, from_server| {
            let (_, opener) = pair(cipher, &key, &iv, listener, &mut chance);
            Pipe::new(chance.within(64..40 << 10), Ear::new(opener, receiver, from_server))
        };
        let pipes = [pipe(Role::Client, of_client, true), pipe(Role::Server, of_server, false)];
        Self {
            pattern,
            sides,
            pipes,
            reference: Reference::default(),
            marks,
            budget,
            budget_cap,
            max_channels,
            refuses: chance.pick(&[0, 0, 10]),
            roomy,
            cuts: chance.percent(15),
            // Channels are told apart by their visitor where the client may refuse some without a word to us.
            anonymous: max_channels == 64,
            most_present: [0; 2],
            now: start,
            chance,
        }
    }

    /// Runs a whole schedule.
    pub(crate) fn run(mut self) -> (Outcome, Tally) {
        let steps = self.chance.within(200..400);
        let cut_at = if self.cuts { self.chance.below(steps) } else { usize::MAX };
        for step in 0..steps {
            if step == cut_at {
                return self.lose();
            }
            if self.step().is_err() {
                let (_, tally) = self.lose();
                return (Outcome::Silent, tally);
            }
            self.check();
        }
        self.settle();
        self.all_delivered();
        self.close_all();
        (Outcome::Settled, self.tally())
    }

    fn step(&mut self) -> Result<(), Violation> {
        let side = self.chance.below(2);
        match self.chance.below(100) {
            0..8 => self.open(),
            8..34 => self.write(side),
            34..54 => self.send(side),
            54..76 => self.deliver(side),
            76..88 => self.take(side),
            88..91 => self.close(side),
            91..94 => self.use_stale_key(side),
            94..96 => self.signal(side),
            96..97 => self.ask(side),
            97..98 => self.change_appetite(side),
            _ => return self.pass_time(),
        }
        Ok(())
    }

    fn channel_of(&mut self, side: usize, wanted: &[End]) -> Option<usize> {
        let of = |channel: &Channel| wanted.contains(&channel.ends[side]);
        let count = self.reference.channels.iter().filter(|channel| of(channel)).count();
        let nth = self.chance.below(count);
        let mut all = self.reference.channels.iter().enumerate().filter(|(_, channel)| of(channel));
        all.nth(nth).map(|(index, _)| index)
    }

    fn open(&mut self) {
        let index = self.reference.channels.len();
        let (v6, known) = (self.chance.percent(30), !self.anonymous || self.chance.percent(90));
        let encrypts = self.sides[SERVER].peer.encrypts_address();
        let told = visitor(index, v6 && (encrypts || self.anonymous), known);
        let Side { mux, out, .. } = &mut self.sides[SERVER];
        let before = mux.open_channels();
        let Ok(key) = mux.open(told, out, &mut self.chance) else {
            assert!(self.present(SERVER) >= self.max_channels, "refused with {before} channels");
            return;
        };
        assert!(before < self.max_channels);
        let appetite = [0, 1].map(|_| self.chance.pick(&[0, 20, 70, 100, 100]));
        self.reference.on_the_way.push_back(index);
        self.reference.channels.push(Channel {
            visitor: told.filter(|address| encrypts || address.is_ipv4()),
            keys: [Some(key), None],
            ends: [End::Open, End::Unborn],
            held: [false; 2],
            sent: [0; 2],
            got: [0; 2],
            closed: [false; 2],
            appetite,
        });
    }

    fn present(&self, side: usize) -> usize {
        let present = |channel: &&Channel| matches!(channel.ends[side], End::Open | End::HungUp);
        self.reference.channels.iter().filter(present).count()
    }

    fn write(&mut self, side: usize) {
        if let Some(index) = self.channel_of(side, &[End::Open]) {
            let count = match self.chance.below(10) {
                0 => 1,
                1..6 => self.chance.within(1..700),
                6..9 => self.chance.within(1..6 << 10),
                _ => self.chance.within(1..LARGEST_WRITE),
            };
            self.write_to(side, index, count);
        }
    }

    fn write_to(&mut self, side: usize, index: usize, count: usize) {
        let Side { mux, out, .. } = &mut self.sides[side];
        let channel = &mut self.reference.channels[index];
        let key = channel.keys[side].unwrap();
        assert_eq!(mux.may_send(key), !channel.held[side], "channel {index}: held, and nobody knows");
        if channel.held[side] || out.len() > OUTBOX_FULL {
            return;
        }
        let at = channel.sent[side];
        let room = count + self.chance.below(100);
        let pattern = self.pattern;
        mux.send_data(key, room, out, &mut self.chance, |body| {
            pattern.write(index, side, at, &mut body[..count]);
            (count, ())
        });
        channel.sent[side] += count;
    }

    /// Moves sealed bytes into the pipe.
    fn send(&mut self, side: usize) {
        let len = self.sides[side].out.len();
        let most = if self.chance.percent(50) { len } else { self.chance.below(len + 1) };
        self.send_up_to(side, most);
    }

    fn send_up_to(&mut self, side: usize, most: usize) {
        let out = &mut self.sides[side].out;
        let written = self.pipes[side].write(&out.unsent()[..most]);
        out.sent(written);
        match self.chance.below(8) {
            0 => out.compact(),
            1 => drop(out.reclaim()),
            2 => drop(out.shrink(1 << 10)),
            _ => {}
        }
    }

    /// Moves bytes from the pipe into the multiplexer.
    fn deliver(&mut self, to: usize) {
        let most = match self.chance.below(4) {
            0 => self.chance.below(80),
            1 => self.chance.below(3000),
            _ => usize::MAX,
        };
        self.deliver_up_to(to, most);
    }

    fn deliver_up_to(&mut self, to: usize, most: usize) {
        let mut bytes = self.pipes[1 - to].read(most);
        let Side { mux, out, .. } = &mut self.sides[to];
        let mut program = Program {
            side: to,
            reference: &mut self.reference,
            chance: &mut Chance::new(self.chance.below(usize::MAX) as u64),
            pattern: self.pattern,
            refuses: self.refuses,
            now: self.now,
        };
        let received = mux.receive(&mut bytes, self.now, out, &mut self.chance, &mut program);
        received.expect("neither side breaks the protocol");
    }

    fn take(&mut self, side: usize) {
        if let Some(index) = self.channel_of(side, &[End::Open, End::HungUp]) {
            let most = if self.chance.percent(30) { usize::MAX } else { self.chance.within(1..4 << 10) };
            self.take_from(side, index, most);
        }
    }

    /// The reader takes some of the first run that waits; returns how much.
    fn take_from(&mut self, side: usize, index: usize, most: usize) -> usize {
        let Side { mux, out, .. } = &mut self.sides[side];
        let channel = &mut self.reference.channels[index];
        let key = channel.keys[side].unwrap();
        let waiting = mux.waiting(key);
        let count = waiting.len().min(most);
        self.pattern.check(index, 1 - side, channel.got[side], &waiting[..count]);
        assert!(channel.ends[side] == End::Open || count > 0, "a channel that hung up with nothing waiting");
        channel.got[side] += count;
        let was = channel.ends[side];
        if mux.taken(key, count, out, &mut self.chance) {
            assert_eq!(was, End::HungUp, "an open channel is over because its reader read");
            self.reference.ended(side, index);
        }
        count
    }

    fn close(&mut self, side: usize) {
        if let Some(index) = self.channel_of(side, &[End::Open, End::HungUp]) {
            self.close_one(side, index);
        }
    }

    fn close_one(&mut self, side: usize, index: usize) {
        let Side { mux, out, .. } = &mut self.sides[side];
        let channel = &mut self.reference.channels[index];
        mux.close(channel.keys[side].unwrap(), out, &mut self.chance);
        (channel.ends[side], channel.closed[side]) = (End::Over, true);
    }

    /// A key whose channel is gone does nothing at all, whoever has its place now.
    fn use_stale_key(&mut self, side: usize) {
        let Some(index) = self.channel_of(side, &[End::Over]) else { return };
        let Some(key) = self.reference.channels[index].keys[side] else { return };
        let Side { mux, out, .. } = &mut self.sides[side];
        let before = (out.len(), mux.open_channels(), mux.waiting_in_all());
        assert!(!mux.may_send(key) && !mux.pauses(key) && mux.waiting(key).is_empty());
        assert!(mux.taken(key, 10, out, &mut self.chance), "a void key is over");
        mux.send_data(key, 10, out, &mut self.chance, |body| (body.len(), ()));
        mux.close(key, out, &mut self.chance);
        assert_eq!(
            before,
            (out.len(), mux.open_channels(), mux.waiting_in_all()),
            "a void key did something"
        );
    }

    fn signal(&mut self, side: usize) {
        let signal = self.chance.pick(&[Signal::GoAway, Signal::Conflict, Signal::Latchkey]);
        let Side { mux, out, .. } = &mut self.sides[side];
        mux.signal(signal, out, &mut self.chance);
        self.reference.signals[side].push_back(signal);
    }

    fn ask(&mut self, side: usize) {
        let Side { mux, out, .. } = &mut self.sides[side];
        mux.ask(self.now, out, &mut self.chance);
        self.reference.asked[side].get_or_insert(self.now);
    }

    fn change_appetite(&mut self, side: usize) {
        if let Some(index) = self.channel_of(side, &[End::Open]) {
            self.reference.channels[index].appetite[side] = self.chance.pick(&[0, 50, 100]);
        }
    }

    fn pass_time(&mut self) -> Result<(), Violation> {
        self.now += Duration::from_millis(self.chance.below(3000) as u64);
        for side in [SERVER, CLIENT] {
            let Side { mux, out, .. } = &mut self.sides[side];
            let (before, asked) = (out.len(), self.reference.asked[side]);
            let due = self.now >= mux.next_deadline();
            let ticked = mux.tick(self.now, out, &mut self.chance);
            let late = asked.is_some_and(|asked| self.now >= asked + PATIENCE);
            assert_eq!(ticked.is_err(), late, "dead is who does not answer in time, and nobody else");
            ticked?;
            if out.len() > before {
                assert!(due && asked.is_none(), "a question out of turn");
                self.reference.asked[side] = Some(self.now);
            }
        }
        Ok(())
    }

    /// What holds after every step.
    fn check(&mut self) {
        let waiting = [SERVER, CLIENT].map(|side| self.sides[side].mux.waiting_in_all());
        assert_eq!(self.budget.used(), waiting[0] + waiting[1], "the budget is what waits");
        assert!(self.budget.peak() <= self.budget_cap);
        assert!(self.reference.refused_unseen == 0 || self.max_channels < 64, "refused without need");
        for side in [SERVER, CLIENT] {
            let present = |end: &End| matches!(end, End::Open | End::HungUp);
            let here = self.reference.channels.iter().filter(|channel| present(&channel.ends[side]));
            let (mut count, mut open, mut unread) = (0, 0, 0);
            for channel in here {
                count += 1;
                open += usize::from(channel.ends[side] == End::Open);
                unread += channel.sent[1 - side] - channel.got[side];
                let slot = channel.keys[side].unwrap().slot();
                assert!(slot < self.most_present[side].max(count).max(1) + self.max_channels, "slots leak");
            }
            self.most_present[side] = self.most_present[side].max(count);
            assert_eq!(self.sides[side].mux.open_channels(), open);
            assert!(count <= self.max_channels, "more channels than may be");
            assert!(waiting[side] <= unread, "more waits than was sent and not read");
            assert!(waiting[side] <= self.marks.tunnel_reset_at, "the tunnel holds more than its mark");
            assert!(waiting[side] <= count * self.marks.reset_at, "a channel holds more than its mark");
            let obedient = self.roomy && self.sides[side].peer.understands_pause();
            assert!(!obedient || self.reference.overflows[side] == 0, "an obedient peer overflowed");
            assert_eq!(self.sides[side].mux.counts().overflows, self.reference.overflows[side]);
            if !self.sides[1 - side].peer.understands_pause() {
                assert_eq!(self.sides[side].mux.counts().pauses_received, 0);
            }
        }
    }

    fn tally(&self) -> Tally {
        let counts = [SERVER, CLIENT].map(|side| self.sides[side].mux.counts());
        let closed = |channel: &&Channel| channel.keys[CLIENT].is_some() && channel.closed[CLIENT];
        Tally {
            channels: counts[SERVER].channels,
            pauses: counts[0].pauses_received + counts[1].pauses_received,
            overflows: counts[0].overflows + counts[1].overflows,
            bytes: self
                .reference
                .channels
                .iter()
                .map(|channel| (channel.got[0] + channel.got[1]) as u64)
                .sum(),
            ended_by_client: self.reference.channels.iter().filter(closed).count() as u64,
            lost: 0,
        }
    }
}
