//! Our bytes against those of the Python reference: tokens, handshakes, frames, and a whole session as
//! the multiplexer reads it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail that way")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::Deserialize;
use snitun::{
    channel::ChannelKey,
    cipher::{AesIv, AesKey, CipherKind, Opener, Role, Sealer, pair},
    frame::{Flow, Header},
    handshake::{Challenge, answer},
    multiplexer::{Ended, Local, Multiplexer, Settings, Signal},
    outbox::Outbox,
    random::Random,
    token::{FernetError, FernetKeys, Token, TokenError},
    version::ProtocolVersion,
};

const NONCE_LEN: usize = 12;
const NOW: f64 = 1_800_000_000.0;

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<TokenVector>,
}

#[derive(Deserialize)]
struct TokenVector {
    name: String,
    keys: Vec<String>,
    token: String,
    payload: Option<Payload>,
}

#[derive(Deserialize)]
struct Payload {
    valid: f64,
    hostname: String,
    aes_key: String,
    aes_iv: String,
    #[serde(default)]
    protocol_version: u64,
    cipher: Option<CipherKind>,
    #[serde(default)]
    alias: Vec<String>,
}

#[derive(Deserialize)]
struct Sessions {
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
struct Session {
    cipher: CipherKind,
    protocol_version: ProtocolVersion,
    key: String,
    iv: String,
    channel: String,
    padding: String,
    challenge: Unit,
    answer: Unit,
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
struct Unit {
    plain: String,
    wire: String,
}

#[derive(Deserialize)]
struct Frame {
    name: String,
    sender: String,
    flow: u8,
    extra: String,
    body: String,
    wire: String,
}

fn tokens() -> Vec<TokenVector> {
    serde_json::from_str::<Tokens>(include_str!("vectors/tokens.json")).unwrap().tokens
}

fn sessions() -> Vec<Session> {
    serde_json::from_str::<Sessions>(include_str!("vectors/sessions.json")).unwrap().sessions
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Draws what the reference drew: each kind of random bytes is known by its length.
#[derive(Default)]
struct Recorded {
    channel: Vec<u8>,
    secret: Vec<u8>,
    nonce: Vec<u8>,
}

impl Random for Recorded {
    fn fill(&mut self, out: &mut [u8]) {
        let recorded = match out.len() {
            8 => &[0; 8][..], // where the counter of aes-gcm starts
            11 => &[0xee; 11],
            NONCE_LEN => &self.nonce,
            16 => &self.channel,
            32 => &self.secret,
            other => panic!("nothing of {other} bytes was recorded"),
        };
        out.copy_from_slice(recorded);
    }
}

impl Session {
    fn ends(&self) -> ((Sealer, Opener), (Sealer, Opener)) {
        let key = AesKey::from_hex(&self.key).unwrap();
        let iv = AesIv::from_hex(&self.iv).unwrap();
        let end = |role| pair(self.cipher, &key, &iv, role, &mut Recorded::default());
        (end(Role::Server), end(Role::Client))
    }

    /// What the reference drew while it sealed this unit.
    fn drawn(&self, wire: &[u8], secret: Vec<u8>) -> Recorded {
        Recorded { channel: hex(&self.channel), secret, nonce: wire[..NONCE_LEN].to_vec() }
    }

    fn shake_hands(&self) -> ((Sealer, Opener), (Sealer, Opener)) {
        let ((mut server_seal, mut server_open), (mut client_seal, mut client_open)) = self.ends();
        let (mut challenge_wire, mut answer_wire) = (hex(&self.challenge.wire), hex(&self.answer.wire));

        let mut sent = Vec::new();
        let mut random = self.drawn(&challenge_wire, hex(&self.challenge.plain));
        let challenge = Challenge::ask(&mut server_seal, &mut random, &mut sent).unwrap();
        assert_eq!(sent, challenge_wire, "the challenge");

        let mut sent = Vec::new();
        let mut random = self.drawn(&answer_wire, Vec::new());
        answer(&mut client_seal, &mut client_open, &mut challenge_wire, &mut random, &mut sent).unwrap();
        assert_eq!(sent, answer_wire, "the answer");

        challenge.check(&mut server_open, &mut answer_wire).unwrap();
        ((server_seal, server_open), (client_seal, client_open))
    }
}

impl Frame {
    fn plain_header(&self, session: &Session) -> [u8; 32] {
        let mut extra = hex(&self.extra);
        extra.resize(11, hex(&session.padding)[0]);
        let size = u32::try_from(self.body.len() / 2).unwrap().to_be_bytes();
        [&hex(&session.channel)[..], &[self.flow], &size, &extra].concat().try_into().unwrap()
    }

    fn expected_flow(&self) -> Flow {
        match self.name.as_str() {
            "new-ipv4" | "new-ipv6" | "new-ipv6-visitor" => Flow::New,
            "data" | "data-reply" => Flow::Data,
            "pause" => Flow::Pause,
            "resume" => Flow::Resume,
            "ping" | "pong" => Flow::Ping,
            "close" => Flow::Close,
            other => panic!("an unknown vector: {other}"),
        }
    }
}

#[test]
fn tokens_of_the_reference_open() {
    let vectors = tokens();
    assert_eq!(vectors.len(), 6);
    for vector in vectors {
        let keys = FernetKeys::from_lines(&vector.keys.join("\n")).unwrap();
        let opened = Token::open(&keys, vector.token.as_bytes(), NOW);
        let Some(payload) = vector.payload else {
            assert_eq!(opened, Err(TokenError::Envelope(FernetError::UnknownKey)), "{}", vector.name);
            continue;
        };
        let expected = Token {
            valid: payload.valid,
            hostname: payload.hostname,
            aes_key: AesKey::from_hex(&payload.aes_key).unwrap(),
            aes_iv: AesIv::from_hex(&payload.aes_iv).unwrap(),
            protocol_version: ProtocolVersion::from_number(payload.protocol_version),
            cipher: payload.cipher.unwrap_or_default(),
            alias: payload.alias,
            extra: None,
        };
        if vector.name == "expired" {
            assert!(matches!(opened, Err(TokenError::Expired { .. })), "{opened:?}");
            assert_eq!(Token::open(&keys, vector.token.as_bytes(), 0.5).unwrap(), expected);
        } else {
            assert_eq!(opened.unwrap(), expected, "{}", vector.name);
        }
    }
}

#[test]
fn a_token_of_ours_has_the_members_of_the_reference() {
    for vector in tokens() {
        let Some(payload) = &vector.payload else { continue };
        let keys = FernetKeys::from_lines(&vector.keys.join("\n")).unwrap();
        let token = Token::open(&keys, vector.token.as_bytes(), 0.5).unwrap();
        let sealed = token.seal(&keys, 1, [7; 16]).unwrap();
        let ours: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&keys.decrypt(sealed.as_bytes()).unwrap()).unwrap();
        assert_eq!(ours["valid"].as_f64(), Some(payload.valid));
        assert_eq!(ours["hostname"], payload.hostname);
        assert_eq!(ours["aes_key"], payload.aes_key);
        assert_eq!(ours["aes_iv"], payload.aes_iv);
        assert_eq!(ours["protocol_version"], payload.protocol_version);
        assert_eq!(ours.get("cipher").is_some(), payload.cipher.is_some());
        assert_eq!(ours.get("alias").is_some(), !payload.alias.is_empty());
        assert!(!ours.contains_key("latchkey"));
    }
}

#[test]
fn handshakes_are_those_of_the_reference() {
    let sessions = sessions();
    assert_eq!(sessions.len(), 5);
    for session in sessions {
        session.shake_hands();
    }
}

#[test]
fn frames_are_those_of_the_reference() {
    for session in sessions() {
        let ((mut server_seal, mut server_open), (mut client_seal, mut client_open)) = session.shake_hands();
        for frame in &session.frames {
            let context = format!("{} {} {}", session.cipher, session.protocol_version, frame.name);
            let (seal, open) = match frame.sender.as_str() {
                "server" => (&mut server_seal, &mut client_open),
                _ => (&mut client_seal, &mut server_open),
            };
            let (plain, mut wire) = (frame.plain_header(&session), hex(&frame.wire));
            let header = Header::decode(&plain);
            assert_eq!(header.flow, frame.expected_flow(), "{context}");
            assert_eq!(header.encode(), plain, "{context}");
            let body = hex(&frame.body);
            let sealed_body = header.flow == Flow::New && !body.is_empty();
            let (header_wire, body_wire) = wire.split_at_mut(plain.len() + seal.overhead());

            let mut sent = Vec::new();
            seal.append(&plain, &mut session.drawn(header_wire, vec![]), &mut sent).unwrap();
            assert_eq!(sent, header_wire, "{context}");
            assert_eq!(open.open(header_wire).unwrap(), plain, "{context}");
            if sealed_body {
                let mut sent = Vec::new();
                seal.append(&body, &mut session.drawn(body_wire, vec![]), &mut sent).unwrap();
                assert_eq!(sent, body_wire, "{context}");
                assert_eq!(open.open(body_wire).unwrap(), body, "{context}");
            } else {
                assert_eq!(body_wire, body, "{context}");
            }
        }
    }
}

/// Takes everything at once and notes what it was told.
#[derive(Default)]
struct Notes {
    opened: Vec<Option<IpAddr>>,
    data: Vec<u8>,
    closed: usize,
    held: Vec<bool>,
}

impl Local for Notes {
    fn opened(&mut self, _: ChannelKey, visitor: Option<IpAddr>) -> bool {
        self.opened.push(visitor);
        true
    }
    fn data(&mut self, _: ChannelKey, bytes: &[u8]) -> usize {
        self.data.extend_from_slice(bytes);
        bytes.len()
    }
    fn closed(&mut self, _: ChannelKey, ended: Ended, drained: bool) {
        assert_eq!((ended, drained), (Ended::ByPeer, true));
        self.closed += 1;
    }
    fn held(&mut self, _: ChannelKey, held: bool) {
        self.held.push(held);
    }
    fn alive(&mut self, _: Duration) {
        panic!("a pong that nobody asked for is no sign of life");
    }
    fn signal(&mut self, signal: Signal) {
        panic!("the reference says no {signal:?}");
    }
}

fn wire_of(session: &Session, sender: &str) -> Vec<u8> {
    session.frames.iter().filter(|frame| frame.sender == sender).flat_map(|frame| hex(&frame.wire)).collect()
}

#[test]
fn a_client_understands_the_server_of_the_reference() {
    let visitor: IpAddr = "203.0.113.7".parse().unwrap();
    for session in sessions() {
        let (_, client) = session.shake_hands();
        let now = Instant::now();
        let mut client =
            Multiplexer::new(Role::Client, session.protocol_version, client, Settings::default(), now);
        let (mut notes, mut outbox) = (Notes::default(), Outbox::default());
        let mut random = session.drawn(&[0; NONCE_LEN], vec![]);
        let mut wire = wire_of(&session, "server");
        client.receive(&mut wire, now, &mut outbox, &mut random, &mut notes).unwrap();
        // The second NEW names the channel that is open already: it opens nothing, and costs nothing.
        assert_eq!(notes.opened, [Some(visitor)], "{}", session.cipher);
        assert_eq!(notes.data, hex(&session.frames[2].body));
        assert_eq!((notes.closed, client.open_channels()), (1, 0));
    }
}

#[test]
fn a_server_opens_channels_as_the_reference_does_and_understands_its_client() {
    let visitor: IpAddr = "203.0.113.7".parse().unwrap();
    for session in sessions() {
        // A recording has one nonce a unit, and NEW is two of them in version 2: its random nonces
        // cannot be drawn again by their length alone. The units themselves are compared above.
        let comparable = session.cipher != CipherKind::AesGcmSiv;
        let (server, _) = session.shake_hands();
        let now = Instant::now();
        let mut server =
            Multiplexer::new(Role::Server, session.protocol_version, server, Settings::default(), now);
        let (mut notes, mut outbox) = (Notes::default(), Outbox::default());
        let mut random = session.drawn(&[0; NONCE_LEN], vec![0xaa; 32]);
        let key = server.open(Some(visitor), &mut outbox, &mut random).unwrap();
        let new = hex(&session.frames[0].wire);
        assert_eq!(outbox.unsent().len(), new.len());
        assert!(!comparable || outbox.unsent() == new, "{} {}", session.cipher, session.protocol_version);

        let mut wire = wire_of(&session, "client");
        server.receive(&mut wire, now, &mut outbox, &mut random, &mut notes).unwrap();
        assert_eq!(notes.data, vec![b'x'; 1000]);
        let pauses = session.protocol_version.understands_pause();
        assert_eq!(notes.held, if pauses { vec![true, false] } else { vec![] });
        assert!(server.may_send(key));
        assert_eq!(server.open_channels(), 1);
    }
}
