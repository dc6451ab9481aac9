//! A tunnel's bytes: a script of frames, lawful and not, is sealed as a peer would and read in one
//! piece, byte by byte, and in pieces of the script's choice. All must come to the same actions, the
//! same answers and the same end.
//!
//! With caps so small that channels overflow, the answers may differ in one way: a PAUSE that is sent
//! while a body arrives in pieces is not sent when all of it overflows at once. They are not compared then.
#![no_main]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use snitun::{
    channel::ChannelKey,
    cipher::{AesIv, AesKey, CipherKind, Opener, Role, Sealer, pair},
    flow_control::{Budget, Marks},
    multiplexer::{Ended, Local, Multiplexer, Settings, Signal, Violation},
    outbox::Outbox,
    random::Random,
    version::ProtocolVersion,
};

// Which channel makes way in a full tunnel depends on how much comes at a time, so no tunnel is full here.
const TINY: Marks = Marks { pause_at: 64, resume_at: 16, reset_at: 256, tunnel_reset_at: 1 << 20 };

/// Ids are counted, everything else is zero.
struct Counted(u8);

impl Random for Counted {
    fn fill(&mut self, out: &mut [u8]) {
        if out.len() == 16 {
            out.fill(self.0);
            self.0 = self.0.wrapping_add(1);
        } else {
            out.fill(0);
        }
    }
}

#[derive(Clone, Copy)]
struct Scene {
    cipher: CipherKind,
    version: ProtocolVersion,
    role: Role,
    /// Are bytes taken at once, or do all of them wait?
    takes: bool,
    tiny: bool,
}

impl Scene {
    fn new(choice: u8) -> Self {
        Self {
            cipher: CipherKind::ALL[usize::from(choice) % 3],
            version: ProtocolVersion::from_number(u64::from(choice) / 3 % 3),
            role: if choice / 9 % 2 == 0 { Role::Client } else { Role::Server },
            takes: choice / 18 % 2 == 0,
            tiny: choice / 36 % 3 == 0,
        }
    }

    fn ciphers(&self, role: Role) -> (Sealer, Opener) {
        pair(self.cipher, &AesKey([3; 32]), &AesIv([4; 16]), role, &mut Counted(0))
    }
}

/// The script, read byte by byte; zeros when it is over.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }
}

/// Seals the script as the peer would.
fn wire(scene: &Scene, mut script: Script<'_>) -> Vec<u8> {
    let peer = match scene.role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    };
    let (mut sealer, _) = scene.ciphers(peer);
    let (mut random, mut wire) = (Counted(0), Vec::new());
    while !script.0.is_empty() && wire.len() < 1 << 16 {
        let (kind, channel, words, size) =
            (script.byte(), script.byte() % 4, script.byte(), usize::from(script.byte()) * 3);
        let flow = [0x01, 0x02, 0x02, 0x04, 0x08, 0x16, 0x32, script.0.len() as u8][usize::from(kind % 8)];
        let words: &[u8] = match words % 6 {
            0 => b"",
            1 => b"ping",
            2 => b"pong",
            3 => b"goaway",
            4 => b"conflict",
            _ => b"4\xcb\x00\x71\x07",
        };
        let mut extra = [0xee; 11];
        extra[..words.len()].copy_from_slice(words);
        let new = flow == 0x01 && scene.version == ProtocolVersion::V2;
        let mut body = vec![kind ^ channel; if new { size / 48 * 16 } else { size }];
        if let [family, ..] = body.as_mut_slice() {
            *family = if words.is_empty() { b'6' } else { b'4' };
        }
        // Now and then a size that is not that of the body: what follows is read as something else.
        let size = if kind >= 0xf0 { u32::from(kind) << (words.len() * 3) } else { body.len() as u32 };
        let header = [&[channel; 16][..], &[flow], &size.to_be_bytes(), &extra].concat();
        sealer.append(&header, &mut random, &mut wire).unwrap();
        if new && !body.is_empty() {
            sealer.append(&body, &mut random, &mut wire).unwrap();
        } else {
            wire.extend_from_slice(&body);
        }
        // Now and then a bit turns over on its way.
        if kind == 0xef {
            let last = wire.len() - 1;
            wire[last] ^= 1;
        }
    }
    wire
}

#[derive(Debug, PartialEq)]
enum Event {
    Opened(ChannelKey, Option<IpAddr>),
    Data(ChannelKey, Vec<u8>),
    Closed(ChannelKey, Ended, bool),
    Held(ChannelKey, bool),
    Alive,
    Said(Signal),
}

struct Recorder {
    events: Vec<Event>,
    keys: Vec<ChannelKey>,
    takes: bool,
}

impl Local for Recorder {
    fn opened(&mut self, key: ChannelKey, visitor: Option<IpAddr>) -> bool {
        // Some visitors are refused.
        let wanted = visitor != Some(IpAddr::from([0xfe; 4]));
        self.events.push(Event::Opened(key, visitor));
        if wanted {
            self.keys.push(key);
        }
        wanted
    }
    fn data(&mut self, key: ChannelKey, bytes: &[u8]) -> usize {
        assert!(!bytes.is_empty());
        if !self.takes {
            return 0;
        }
        match self.events.last_mut() {
            Some(Event::Data(before, data)) if *before == key => data.extend_from_slice(bytes),
            _ => self.events.push(Event::Data(key, bytes.to_vec())),
        }
        bytes.len()
    }
    fn closed(&mut self, key: ChannelKey, ended: Ended, drained: bool) {
        self.events.push(Event::Closed(key, ended, drained));
    }
    fn held(&mut self, key: ChannelKey, held: bool) {
        self.events.push(Event::Held(key, held));
    }
    fn alive(&mut self, _: Duration) {
        self.events.push(Event::Alive);
    }
    fn signal(&mut self, signal: Signal) {
        self.events.push(Event::Said(signal));
    }
}

#[derive(Debug, PartialEq)]
struct Outcome {
    end: Result<(), Violation>,
    events: Vec<Event>,
    answers: Option<Vec<u8>>,
    left_waiting: Vec<Vec<u8>>,
}

fn receive(scene: &Scene, wire: &[u8], now: Instant, mut sizes: impl FnMut() -> usize) -> Outcome {
    let budget = Budget::new(1 << 20);
    let marks = if scene.tiny { TINY } else { Marks::default() };
    let settings = Settings { marks, budget: budget.clone(), max_channels: 3, ..Settings::default() };
    let mut mux = Multiplexer::new(scene.role, scene.version, scene.ciphers(scene.role), settings, now);
    let (mut random, mut outbox) = (Counted(0), Outbox::default());
    let mut recorder = Recorder { events: vec![], keys: vec![], takes: scene.takes };
    if scene.role == Role::Server {
        for visitor in [None, Some(IpAddr::from([192, 0, 2, 1]))] {
            recorder.keys.push(mux.open(visitor, &mut outbox, &mut random).unwrap());
        }
        mux.ask(now, &mut outbox, &mut random);
    }

    let mut wire = wire.to_vec();
    let (mut rest, mut end) = (wire.as_mut_slice(), Ok(()));
    while !rest.is_empty() && end.is_ok() {
        let (piece, later) = rest.split_at_mut(sizes().clamp(1, rest.len()));
        rest = later;
        end = mux.receive(piece, now, &mut outbox, &mut random, &mut recorder);
        assert!(mux.waiting_in_all() <= marks.tunnel_reset_at && mux.open_channels() <= 3);
        assert_eq!(mux.waiting_in_all(), budget.used());
    }
    let answers = (!scene.tiny).then(|| outbox.unsent().to_vec());

    // What waits is taken, piece by piece, as a reader that woke up would.
    let mut left_waiting = Vec::new();
    for key in &recorder.keys {
        let mut waiting = Vec::new();
        loop {
            let first = mux.waiting(*key);
            let count = first.len().min(100);
            waiting.extend_from_slice(&first[..count]);
            if count == 0 || mux.taken(*key, count, &mut outbox, &mut random) {
                break;
            }
        }
        assert!(!mux.pauses(*key), "a channel with an empty queue goes on");
        left_waiting.push(waiting);
    }
    assert_eq!((mux.waiting_in_all(), budget.used()), (0, 0));
    Outcome { end, events: recorder.events, answers, left_waiting }
}

fuzz_target!(|bytes: &[u8]| {
    let [choice, script @ ..] = bytes else { return };
    let scene = Scene::new(*choice);
    let wire = wire(&scene, Script(script));
    let now = Instant::now();
    let whole = receive(&scene, &wire, now, || usize::MAX);
    let mut sizes = script.iter().rev().cycle();
    let pieces = receive(&scene, &wire, now, || sizes.next().map_or(1, |size| usize::from(*size)));
    assert_eq!(pieces, whole);
    if wire.len() < 4096 {
        assert_eq!(receive(&scene, &wire, now, || 1), whole);
    }
    // What is no session at all, too.
    let _ = receive(&scene, script, now, || usize::MAX);
});
