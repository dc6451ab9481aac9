//! What a peer cannot make us keep, and what it is told even when it does not read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail that way")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use snitun::{
    channel::ChannelKey,
    cipher::{AesIv, AesKey, CipherKind, Role, pair},
    flow_control::Marks,
    frame::HEADER_LEN,
    multiplexer::{Ended, Local, Multiplexer, Settings, Signal, Violation},
    outbox::Outbox,
    random::Random,
    version::ProtocolVersion,
};

struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        self.0 = self.0.wrapping_add(1);
        out.fill(self.0);
    }
}

/// Takes nothing, and remembers which channels were opened and how they ended.
#[derive(Default)]
struct Idle(Vec<ChannelKey>, Vec<(ChannelKey, Ended)>);

impl Local for Idle {
    fn opened(&mut self, key: ChannelKey, _: Option<IpAddr>) -> bool {
        self.0.push(key);
        true
    }

    fn data(&mut self, _: ChannelKey, _: &[u8]) -> usize {
        0
    }

    fn closed(&mut self, key: ChannelKey, ended: Ended, _: bool) {
        self.1.push((key, ended));
    }

    fn held(&mut self, _: ChannelKey, _: bool) {}

    fn alive(&mut self, _: Duration) {}

    fn signal(&mut self, _: Signal) {}
}

fn ends(settings: &Settings) -> (Multiplexer, Multiplexer, Counting) {
    let mut random = Counting(0);
    let mut end = |role| {
        let ciphers = pair(CipherKind::AesCbc, &AesKey([7; 32]), &AesIv([9; 16]), role, &mut random);
        Multiplexer::new(role, ProtocolVersion::V1, ciphers, settings.clone(), Instant::now())
    };
    (end(Role::Server), end(Role::Client), random)
}

fn pass(
    from: &mut Outbox,
    to: &mut Multiplexer,
    out: &mut Outbox,
    random: &mut Counting,
    idle: &mut Idle,
) -> Result<(), Violation> {
    let mut bytes = from.unsent().to_vec();
    from.sent(bytes.len());
    to.receive(&mut bytes, Instant::now(), out, random, idle)
}

fn one_byte(mux: &mut Multiplexer, key: ChannelKey, out: &mut Outbox, random: &mut Counting) {
    mux.send_data(key, 1, out, random, |body| {
        body.fill(1);
        (1, ())
    });
}

#[test]
fn a_backlog_ends_a_peer_that_asks_but_keeps_no_channel_from_its_resume_and_its_close() {
    let marks = Marks { pause_at: 1, resume_at: 0, ..Marks::default() };
    let settings = Settings { marks, max_backlog: 4 * HEADER_LEN, ..Settings::default() };
    let (mut server, mut client, mut random) = ends(&settings);
    let (mut to_client, mut to_server, mut idle) = (Outbox::default(), Outbox::default(), Idle::default());
    let key = server.open(None, &mut to_client, &mut random).unwrap();
    one_byte(&mut server, key, &mut to_client, &mut random);
    pass(&mut to_client, &mut client, &mut to_server, &mut random, &mut idle).unwrap();
    assert_eq!(to_server.len(), HEADER_LEN, "PAUSE");
    // The server asks, and reads no answer.
    let asked = (0..9).find_map(|_| {
        server.signal(Signal::GoAway, &mut to_client, &mut random);
        pass(&mut to_client, &mut client, &mut to_server, &mut random, &mut idle).err()
    });
    assert_eq!(asked, Some(Violation::Backlog));
    let before = to_server.len();
    client.taken(idle.0[0], 1, &mut to_server, &mut random);
    assert_eq!(to_server.len(), before + HEADER_LEN, "RESUME");
    client.close(idle.0[0], &mut to_server, &mut random);
    assert_eq!(to_server.len(), before + 2 * HEADER_LEN, "CLOSE");
}

#[test]
fn no_visitor_is_sent_to_a_peer_that_does_not_read() {
    let settings = Settings { max_backlog: 4 * HEADER_LEN, ..Settings::default() };
    let (mut server, _, mut random) = ends(&settings);
    let mut out = Outbox::default();
    let opened = (0..9).take_while(|_| {
        let key = server.open(None, &mut out, &mut random);
        key.map(|key| server.close(key, &mut out, &mut random)).is_ok()
    });
    assert_eq!(opened.count(), 3, "NEW and CLOSE, three times");
}

#[test]
fn channels_that_the_peer_closed_count_until_they_are_read() {
    let settings = Settings { max_channels: 2, ..Settings::default() };
    let (mut server, mut client, mut random) = ends(&settings);
    let (mut to_client, mut to_server, mut idle) = (Outbox::default(), Outbox::default(), Idle::default());
    for _ in 0..3 {
        let key = server.open(None, &mut to_client, &mut random).unwrap();
        one_byte(&mut server, key, &mut to_client, &mut random);
        server.close(key, &mut to_client, &mut random);
        pass(&mut to_client, &mut client, &mut to_server, &mut random, &mut idle).unwrap();
    }
    assert_eq!((idle.0.len(), to_server.len()), (2, HEADER_LEN), "the third is refused");
    assert!(client.taken(idle.0[0], 1, &mut to_server, &mut random));
    server.open(None, &mut to_client, &mut random).unwrap();
    pass(&mut to_client, &mut client, &mut to_server, &mut random, &mut idle).unwrap();
    assert_eq!(idle.0.len(), 3);
}

#[test]
fn where_a_tunnel_is_full_the_channel_in_which_most_waits_makes_way() {
    let marks = Marks { pause_at: 1000, resume_at: 10, reset_at: 1000, tunnel_reset_at: 1000 };
    let settings = Settings { marks, ..Settings::default() };
    let (mut server, mut client, mut random) = ends(&settings);
    let (mut to_client, mut to_server, mut idle) = (Outbox::default(), Outbox::default(), Idle::default());
    let keys = [(); 3].map(|()| server.open(None, &mut to_client, &mut random).unwrap());
    for (key, bytes) in [(keys[0], 200), (keys[1], 600), (keys[2], 150), (keys[2], 150)] {
        server.send_data(key, bytes, &mut to_client, &mut random, |body| (body.len(), ()));
    }
    pass(&mut to_client, &mut client, &mut to_server, &mut random, &mut idle).unwrap();
    assert_eq!(idle.1, [(idle.0[1], Ended::Overflow)], "not the one that came last");
    assert_eq!(client.waiting_in_all(), 500);
    assert_eq!(to_server.len(), HEADER_LEN, "CLOSE");
    assert_eq!(settings.budget.used(), 500);
}
