//! Two tunnels back to back over loopback: a visitor's socket on one side, an instance's on the other.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may fail that way"
)]

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use snitun::{
    cipher::{AesIv, AesKey, CipherKind, Role},
    driver::{
        Arrived, Asked, ChannelEnd, CloseReason, Host, Signal, Tunnel, TunnelEnd, TunnelHandle,
        TunnelSettings, client_handshake, server_handshake,
    },
    flow_control::Marks,
    version::ProtocolVersion,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, unconstrained},
    time::timeout,
};

type Ends = Arc<Mutex<Vec<ChannelEnd>>>;

struct Proxy(Ends);

impl Host for Proxy {
    type Stream = TcpStream;
    type Arrival = (std::net::TcpStream, IpAddr);
    type Ticket = ();

    fn open(&mut self, _: Option<IpAddr>) -> Option<Arrived<TcpStream, ()>> {
        panic!("a server is never asked to open a channel")
    }

    fn admit(
        &mut self,
        (stream, address): Self::Arrival,
    ) -> Option<(Option<IpAddr>, Arrived<TcpStream, ()>)> {
        let stream = TcpStream::from_std(stream).ok()?;
        Some((Some(address), Arrived { stream, first: b"hello ".to_vec(), ticket: () }))
    }

    fn finished(&mut self, stream: TcpStream, (): (), end: ChannelEnd) {
        self.0.lock().unwrap().push(end);
        drop(tokio::spawn(byte_relay::last_words::say_goodbye(stream)));
    }

    fn signal(&mut self, _: Signal) {}

    fn alive(&mut self, _: Duration) {}
}

struct Agent {
    target: SocketAddr,
    seen: Arc<Mutex<Vec<Option<IpAddr>>>>,
    signals: Arc<Mutex<Vec<Signal>>>,
}

impl Host for Agent {
    type Stream = TcpStream;
    type Arrival = std::convert::Infallible;
    type Ticket = ();

    fn open(&mut self, visitor: Option<IpAddr>) -> Option<Arrived<TcpStream, ()>> {
        self.seen.lock().unwrap().push(visitor);
        let stream = std::net::TcpStream::connect(self.target).ok()?;
        stream.set_nonblocking(true).ok()?;
        let stream = TcpStream::from_std(stream).ok()?;
        Some(Arrived { stream, first: b"first ".to_vec(), ticket: () })
    }

    fn admit(&mut self, _: Self::Arrival) -> Option<(Option<IpAddr>, Arrived<TcpStream, ()>)> {
        None
    }

    fn finished(&mut self, _: TcpStream, (): (), _: ChannelEnd) {}

    fn signal(&mut self, signal: Signal) {
        self.signals.lock().unwrap().push(signal);
    }

    fn alive(&mut self, _: Duration) {}
}

type Ended = JoinHandle<(TunnelEnd, snitun::multiplexer::Counts)>;

struct Pair {
    proxy: TunnelHandle<(std::net::TcpStream, IpAddr)>,
    ends: Ends,
    seen: Arc<Mutex<Vec<Option<IpAddr>>>>,
    signals: Arc<Mutex<Vec<Signal>>>,
    proxy_ended: Ended,
    agent_ended: Ended,
    origin: TcpListener,
}

async fn pair(kind: CipherKind, version: ProtocolVersion, settings: TunnelSettings) -> Pair {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (key, iv) = (AesKey([7; 32]), AesIv([9; 16]));
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(connect, listener.accept());
    let (mut client, mut server) = (client.unwrap(), server.unwrap().0);
    let (agent_side, proxy_side) =
        tokio::join!(client_handshake(&mut client, b"tok", kind, &key, &iv), async {
            let mut token = [0; 3];
            server.read_exact(&mut token).await.unwrap();
            assert_eq!(&token, b"tok");
            server_handshake(&mut server, kind, &key, &iv).await
        });
    let (ends, seen, signals) = (Ends::default(), Arc::default(), Arc::default());
    let (tunnel, proxy) = Tunnel::new(
        Role::Server,
        server,
        proxy_side.unwrap(),
        version,
        settings.clone(),
        Proxy(Arc::clone(&ends)),
    );
    let proxy_ended = tokio::spawn(unconstrained(tunnel));
    let host = Agent {
        target: origin.local_addr().unwrap(),
        seen: Arc::clone(&seen),
        signals: Arc::clone(&signals),
    };
    let (tunnel, _) = Tunnel::new(Role::Client, client, agent_side.unwrap(), version, settings, host);
    let agent_ended = tokio::spawn(unconstrained(tunnel));
    Pair { proxy, ends, seen, signals, proxy_ended, agent_ended, origin }
}

impl Pair {
    /// A visitor through the tunnel, and the connection the instance got of it.
    async fn visit(&self, address: &str) -> io::Result<(TcpStream, TcpStream)> {
        let front = TcpListener::bind("127.0.0.1:0").await?;
        let (visitor, accepted) = tokio::join!(TcpStream::connect(front.local_addr()?), front.accept());
        let accepted = accepted?.0.into_std()?;
        self.proxy.send_visitor((accepted, address.parse().unwrap())).unwrap();
        let (instance, _) = timeout(Duration::from_secs(10), self.origin.accept()).await.unwrap()?;
        Ok((visitor?, instance))
    }
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    timeout(Duration::from_secs(10), stream.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn a_visitor_reaches_the_instance_in_every_version_and_cipher() {
    for kind in CipherKind::ALL {
        for version in [ProtocolVersion::V0, ProtocolVersion::V1, ProtocolVersion::V2] {
            let pair = pair(kind, version, TunnelSettings::default()).await;
            let (mut visitor, mut instance) = pair.visit("203.0.113.7").await.unwrap();
            visitor.write_all(b"world").await.unwrap();
            expect(&mut instance, b"first hello world").await;
            instance.write_all(b"answer").await.unwrap();
            drop(instance);
            expect(&mut visitor, b"answer").await;
            assert_eq!(visitor.read(&mut [0; 8]).await.unwrap(), 0, "the end reaches the visitor");
            let (_, _instance) = pair.visit("2001:db8::7").await.unwrap();
            let v6 = (version == ProtocolVersion::V2).then(|| "2001:db8::7".parse().unwrap());
            assert_eq!(*pair.seen.lock().unwrap(), [Some("203.0.113.7".parse().unwrap()), v6]);
            let end = pair.ends.lock().unwrap()[0];
            assert_eq!((end.why, end.to_peer, end.from_peer), (CloseReason::Peer, 11, 6));
        }
    }
}

#[tokio::test]
async fn megabytes_pass_both_ways_at_once_unharmed() {
    let pair = pair(CipherKind::AesGcmSiv, ProtocolVersion::V2, TunnelSettings::default()).await;
    let mut jobs = Vec::new();
    for number in 0..4u8 {
        let (visitor, instance) = pair.visit("203.0.113.7").await.unwrap();
        for (stream, skip) in [(visitor, 0), (instance, 12)] {
            let (mut read, mut write) = stream.into_split();
            let pattern: Vec<u8> = (0..16u32 << 20).map(|i| (i >> 8) as u8 ^ i as u8 ^ number).collect();
            let expected = pattern.clone();
            jobs.push(tokio::spawn(async move {
                let send = tokio::spawn(async move {
                    write.write_all(&pattern).await.unwrap();
                    write
                });
                let mut got = vec![0; expected.len() + skip];
                timeout(Duration::from_mins(1), read.read_exact(&mut got)).await.unwrap().unwrap();
                assert!(got[skip..] == expected[..], "bytes arrive as they were sent");
                send.await.unwrap()
            }));
        }
    }
    let mut open = Vec::new();
    for job in jobs {
        open.push(job.await.unwrap());
    }
    assert_eq!(pair.proxy.facts().waiting, 0);
}

#[tokio::test]
async fn a_visitor_that_does_not_read_stalls_nobody_and_costs_no_more_than_its_mark() {
    let mut settings = TunnelSettings::default();
    settings.protocol.marks =
        Marks { pause_at: 256 << 10, resume_at: 64 << 10, reset_at: 8 << 20, tunnel_reset_at: 16 << 20 };
    for (version, survives) in [(ProtocolVersion::V1, true), (ProtocolVersion::V0, false)] {
        let pair = pair(CipherKind::AesCbc, version, settings.clone()).await;
        let (mut slow, mut instance) = pair.visit("203.0.113.7").await.unwrap();
        let total = 64usize << 20;
        let flood = tokio::spawn(async move {
            let sent = instance.write_all(&vec![42; total]).await;
            (instance, sent)
        });
        for _ in 0..50 {
            let (mut visitor, mut other) = pair.visit("203.0.113.8").await.unwrap();
            visitor.write_all(b"quick").await.unwrap();
            expect(&mut other, b"first hello quick").await;
            other.write_all(b"done").await.unwrap();
            expect(&mut visitor, b"done").await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(pair.proxy.facts().waiting <= 8 << 20);
        let mut got = Vec::new();
        if survives {
            assert!(pair.proxy.facts().waiting > 0, "the visitor did not read, so something waits");
            slow.take(total as u64).read_to_end(&mut got).await.unwrap();
            assert_eq!(got.len(), total);
            flood.await.unwrap().1.unwrap();
        } else {
            let _ = slow.read_to_end(&mut got).await;
            assert!(got.len() < total);
            let ends = pair.ends.lock().unwrap().clone();
            assert!(ends.iter().any(|end| end.why == CloseReason::Overflow));
        }
    }
}

#[tokio::test]
async fn a_tunnel_that_drains_ends_after_its_last_channel() {
    let pair = pair(CipherKind::AesCbc, ProtocolVersion::V2, TunnelSettings::default()).await;
    let (mut visitor, mut instance) = pair.visit("203.0.113.7").await.unwrap();
    pair.proxy.signal(Signal::GoAway);
    pair.proxy.drain();
    visitor.write_all(b"still here").await.unwrap();
    expect(&mut instance, b"first hello still here").await;
    assert!(!pair.proxy_ended.is_finished());
    assert_eq!(*pair.signals.lock().unwrap(), [Signal::GoAway]);
    drop(instance);
    let (end, _) = timeout(Duration::from_secs(10), pair.proxy_ended).await.unwrap().unwrap();
    assert!(matches!(end, TunnelEnd::Asked(Asked::Drained)), "{end:?}");
    let (end, _) = timeout(Duration::from_secs(10), pair.agent_ended).await.unwrap().unwrap();
    assert!(matches!(end, TunnelEnd::PeerClosed), "{end:?}");
    let front = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(front.local_addr().unwrap()).unwrap();
    assert!(pair.proxy.send_visitor((stream, "203.0.113.7".parse().unwrap())).is_err());
}

#[tokio::test]
async fn a_probe_is_answered_and_a_conflict_is_heard_before_the_end() {
    let pair = pair(CipherKind::AesGcm, ProtocolVersion::V1, TunnelSettings::default()).await;
    timeout(Duration::from_secs(10), pair.proxy.probe()).await.unwrap().unwrap();
    assert!(pair.proxy.facts().last_pong.is_some());
    pair.proxy.signal(Signal::Conflict);
    pair.proxy.end(Asked::Conflict);
    timeout(Duration::from_secs(10), pair.agent_ended).await.unwrap().unwrap();
    assert_eq!(*pair.signals.lock().unwrap(), [Signal::Conflict]);
}

#[tokio::test]
async fn a_tunnel_that_is_cut_is_closed_at_once_and_ends_when_it_may() {
    let farewell = Duration::from_millis(300);
    for (settings, finishes) in [
        (TunnelSettings::default(), true),
        // Nobody lets it end, so it does by itself.
        (TunnelSettings { farewell, ..TunnelSettings::default() }, false),
    ] {
        let pair = pair(CipherKind::AesGcm, ProtocolVersion::V2, settings).await;
        let (mut visitor, _instance) = pair.visit("203.0.113.7").await.unwrap();
        pair.proxy.cut(Asked::Revoked);
        let (end, _) = timeout(Duration::from_secs(10), pair.agent_ended).await.unwrap().unwrap();
        assert!(matches!(end, TunnelEnd::PeerClosed), "{end:?}");
        assert!(pair.proxy.is_closed(), "nobody is handed to it any more");
        if finishes {
            assert!(timeout(Duration::from_millis(300), visitor.read(&mut [0; 8])).await.is_err());
            assert!(!pair.proxy_ended.is_finished());
            pair.proxy.finish();
        }
        let (end, _) = timeout(Duration::from_secs(10), pair.proxy_ended).await.unwrap().unwrap();
        assert!(matches!(end, TunnelEnd::Asked(Asked::Revoked)), "{end:?}");
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(10), visitor.read_to_end(&mut rest)).await.unwrap();
    }
}

#[tokio::test]
async fn an_idle_channel_is_closed_and_a_silent_peer_is_given_up() {
    let mut settings = TunnelSettings { idle: Duration::from_millis(300), ..TunnelSettings::default() };
    settings.protocol.heartbeat.every = Duration::from_millis(100);
    settings.protocol.heartbeat.patience = Duration::from_millis(400);
    let pair = pair(CipherKind::AesCbc, ProtocolVersion::V2, settings).await;
    let (mut visitor, _instance) = pair.visit("203.0.113.7").await.unwrap();
    let end = timeout(Duration::from_secs(10), visitor.read(&mut [0; 8])).await.unwrap();
    assert_eq!(end.unwrap(), 0);
    // The heartbeat went on all the time, so the tunnel is still there. Now its peer stops answering.
    assert!(!pair.proxy_ended.is_finished());
    assert!(pair.proxy.facts().last_pong.is_some());
}
