//! The stream of frames: how it is cut into reads changes nothing, and nothing in it can bring the reader down.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail that way")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use snitun::{
    channel::ChannelKey,
    cipher::{AesIv, AesKey, CipherKind, Role, Sealer, pair},
    flow_control::{Budget, Marks},
    frame::{ChannelId, Flow, Header},
    multiplexer::{Counts, Ended, Local, Multiplexer, Settings, Signal, Violation},
    outbox::Outbox,
    random::Random,
    version::ProtocolVersion,
};

/// As good as random for padding, and the same each time.
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        self.0 = self.0.wrapping_add(1);
        out.fill(self.0);
    }
}

#[derive(Debug, PartialEq)]
enum Action {
    Opened(ChannelKey, Option<IpAddr>),
    Data(ChannelKey, Vec<u8>),
    Closed(ChannelKey, Ended, bool),
    Held(ChannelKey, bool),
    Alive(Duration),
    Signal(Signal),
}

/// Writes down what it is told; one channel's bytes in a row are one action, however they came.
struct Scribe {
    actions: Vec<Action>,
    takes: bool,
}

impl Local for Scribe {
    fn opened(&mut self, key: ChannelKey, visitor: Option<IpAddr>) -> bool {
        self.actions.push(Action::Opened(key, visitor));
        true
    }

    fn data(&mut self, key: ChannelKey, bytes: &[u8]) -> usize {
        if !self.takes {
            return 0;
        }
        match self.actions.last_mut() {
            Some(Action::Data(last, known)) if *last == key => known.extend_from_slice(bytes),
            _ => self.actions.push(Action::Data(key, bytes.to_vec())),
        }
        bytes.len()
    }

    fn closed(&mut self, key: ChannelKey, ended: Ended, drained: bool) {
        self.actions.push(Action::Closed(key, ended, drained));
    }

    fn held(&mut self, key: ChannelKey, held: bool) {
        self.actions.push(Action::Held(key, held));
    }

    fn alive(&mut self, round_trip: Duration) {
        self.actions.push(Action::Alive(round_trip));
    }

    fn signal(&mut self, signal: Signal) {
        self.actions.push(Action::Signal(signal));
    }
}

#[derive(Clone, Copy, Debug)]
struct Scene {
    cipher: CipherKind,
    version: ProtocolVersion,
    role: Role,
    takes: bool,
}

fn scenes() -> impl Strategy<Value = Scene> {
    use ProtocolVersion::{V0, V1, V2};
    (
        prop::sample::select(CipherKind::ALL.to_vec()),
        prop::sample::select(vec![V0, V1, V2]),
        prop::sample::select(vec![Role::Client, Role::Server]),
        any::<bool>(),
    )
        .prop_map(|(cipher, version, role, takes)| Scene { cipher, version, role, takes })
}

const KEY: AesKey = AesKey([7; 32]);
const IV: AesIv = AesIv([9; 16]);

#[derive(Debug, PartialEq)]
struct Seen {
    actions: Vec<Action>,
    answers: Vec<u8>,
    end: Result<(), Violation>,
    counts: Counts,
    waiting: usize,
}

/// What comes of the bytes when they arrive in these pieces; the last size is used again until all are gone.
fn receive(scene: Scene, start: Instant, mut bytes: Vec<u8>, pieces: &[usize]) -> Seen {
    let marks = Marks { pause_at: 64, resume_at: 16, ..Marks::default() };
    let settings = Settings { marks, budget: Budget::new(64 << 20), ..Settings::default() };
    let mut random = Counting(0);
    let ciphers = pair(scene.cipher, &KEY, &IV, scene.role, &mut random);
    let mut mux = Multiplexer::new(scene.role, scene.version, ciphers, settings, start);
    let mut out = Outbox::default();
    let mut scribe = Scribe { actions: Vec::new(), takes: scene.takes };
    // Channels of our own to speak of: some of the ids in the script are theirs.
    if scene.role == Role::Server {
        for _ in 0..3 {
            mux.open(None, &mut out, &mut random).unwrap();
        }
    }
    let mut rest = &mut bytes[..];
    let mut sizes = pieces.iter().copied();
    let mut size = 1;
    let mut end = Ok(());
    while !rest.is_empty() && end.is_ok() {
        size = sizes.next().unwrap_or(size).clamp(1, rest.len());
        let (piece, later) = rest.split_at_mut(size);
        end = mux.receive(piece, start, &mut out, &mut random, &mut scribe);
        rest = later;
    }
    let (counts, waiting) = (mux.counts(), mux.waiting_in_all());
    Seen { actions: scribe.actions, answers: out.unsent().to_vec(), end, counts, waiting }
}

#[derive(Clone, Debug)]
struct Said {
    flow: Flow,
    id: u8,
    body: usize,
    word: &'static [u8],
}

fn script() -> impl Strategy<Value = Vec<Said>> {
    let flow = prop::sample::select(vec![
        Flow::New,
        Flow::New,
        Flow::Data,
        Flow::Data,
        Flow::Data,
        Flow::Close,
        Flow::Ping,
        Flow::Pause,
        Flow::Resume,
        Flow::Unknown(0x77),
    ]);
    let word = prop::sample::select(vec![&b"ping"[..], b"pong", b"goaway", b"conflict", b"latchkey", b""]);
    let body = prop_oneof![Just(0), 0..70usize, 0..5000usize];
    let said = (flow, 0..8u8, body, word).prop_map(|(flow, id, body, word)| Said { flow, id, body, word });
    prop::collection::vec(said, 0..40)
}

/// Seals the script as a peer would.
fn seal(scene: Scene, script: &[Said]) -> Vec<u8> {
    let mut random = Counting(100);
    let peer = if scene.role == Role::Client { Role::Server } else { Role::Client };
    let (mut sealer, _): (Sealer, _) = pair(scene.cipher, &KEY, &IV, peer, &mut random);
    let mut bytes = Vec::new();
    for said in script {
        let mut extra = [b'4'; 11];
        extra[..said.word.len()].copy_from_slice(said.word);
        let address = said.flow == Flow::New && scene.version == ProtocolVersion::V2;
        let size = if address { (said.body / 16 * 16).min(64) } else { said.body };
        let size_on_wire = u32::try_from(size).unwrap();
        let header = Header { channel: ChannelId([said.id; 16]), flow: said.flow, size: size_on_wire, extra };
        sealer.append(&header.encode(), &mut random, &mut bytes).unwrap();
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap() ^ said.id).collect();
        if address && size > 0 {
            sealer.append(&body, &mut random, &mut bytes).unwrap();
        } else {
            bytes.extend_from_slice(&body);
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_the_stream_is_cut_changes_nothing(
        scene in scenes(),
        script in script(),
        pieces in prop::collection::vec(1..200usize, 1..60),
    ) {
        let (start, bytes) = (Instant::now(), seal(scene, &script));
        let whole = receive(scene, start, bytes.clone(), &[usize::MAX]);
        prop_assert_eq!(whole.end, Ok(()));
        prop_assert_eq!(&whole, &receive(scene, start, bytes.clone(), &pieces));
        prop_assert_eq!(&whole, &receive(scene, start, bytes, &[1]));
    }

    #[test]
    fn garbage_ends_a_tunnel_at_the_most(
        scene in scenes(),
        script in script(),
        garbage in prop::collection::vec(any::<u8>(), 0..2000),
        at in any::<prop::sample::Index>(),
        pieces in prop::collection::vec(1..300usize, 1..20),
    ) {
        let mut bytes = seal(scene, &script);
        let at = at.index(bytes.len() + 1);
        bytes.splice(at..at, garbage);
        let start = Instant::now();
        let whole = receive(scene, start, bytes.clone(), &[usize::MAX]);
        prop_assert_eq!(whole, receive(scene, start, bytes, &pieces));
    }
}
