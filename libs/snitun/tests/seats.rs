//! A channel's place is given again before its stream has taken its first bytes.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use snitun::{
    cipher::{AesIv, AesKey, CipherKind, Role, pair},
    driver::{Arrived, ChannelEnd, CloseReason, Host, Signal, ThreadRandom, Tunnel, TunnelSettings},
    multiplexer::{Multiplexer, Settings},
    outbox::Outbox,
    version::ProtocolVersion,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Each of its streams takes four bytes, and has eight to say first.
struct Narrow {
    far_ends: Vec<DuplexStream>,
    ended: Arc<Mutex<Vec<(usize, CloseReason)>>>,
}

impl Host for Narrow {
    type Stream = DuplexStream;
    type Arrival = std::convert::Infallible;
    type Ticket = usize;

    fn open(&mut self, _: Option<IpAddr>) -> Option<Arrived<DuplexStream, usize>> {
        let (stream, far_end) = duplex(4);
        self.far_ends.push(far_end);
        Some(Arrived { stream, first: b"PREAMBLE".to_vec(), ticket: self.far_ends.len() })
    }

    fn admit(&mut self, _: Self::Arrival) -> Option<(Option<IpAddr>, Arrived<DuplexStream, usize>)> {
        None
    }

    fn finished(&mut self, _: DuplexStream, ticket: usize, end: ChannelEnd) {
        self.ended.lock().unwrap().push((ticket, end.why));
    }

    fn signal(&mut self, _: Signal) {}

    fn alive(&mut self, _: Duration) {}
}

#[tokio::test]
async fn a_place_that_is_given_again_ends_the_visit_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (agent, proxy) = tokio::join!(connect, listener.accept());
    let (agent, mut proxy) = (agent.unwrap(), proxy.unwrap().0);
    let (key, iv, random) = (AesKey([1; 32]), AesIv([2; 16]), &mut ThreadRandom);

    // The proxy's frames: one visitor comes and goes, and a second one comes and stays.
    let (sealer, opener) = pair(CipherKind::AesCbc, &key, &iv, Role::Server, random);
    let now = std::time::Instant::now();
    let v1 = ProtocolVersion::V1;
    let mut mux = Multiplexer::new(Role::Server, v1, (sealer, opener), Settings::default(), now);
    let mut out = Outbox::default();
    let first = mux.open(None, &mut out, random).unwrap();
    mux.close(first, &mut out, random);
    mux.open(None, &mut out, random).unwrap();
    mux.ask(now, &mut out, random);
    proxy.write_all(out.unsent()).await.unwrap();

    let ended = Arc::default();
    let host = Narrow { far_ends: Vec::new(), ended: Arc::clone(&ended) };
    let ciphers = pair(CipherKind::AesCbc, &key, &iv, Role::Client, random);
    let (tunnel, handle) = Tunnel::new(Role::Client, agent, ciphers, v1, TunnelSettings::default(), host);
    let tunnel = tokio::spawn(tunnel);
    // Its pong says that it has handled all of it.
    timeout(Duration::from_secs(10), proxy.read_exact(&mut [0; 32])).await.unwrap().unwrap();
    drop(proxy);
    timeout(Duration::from_secs(10), tunnel).await.unwrap().unwrap();
    let ended = ended.lock().unwrap().clone();
    assert_eq!(ended, [(1, CloseReason::Peer), (2, CloseReason::TunnelEnded)]);
    assert_eq!(handle.facts().channels, 0);
}
