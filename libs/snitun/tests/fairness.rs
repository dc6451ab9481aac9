//! A tunnel whose instance never runs dry still hears its peer: a PAUSE that waits costs its reader megabytes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail that way")]

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use snitun::{
    cipher::{AesIv, AesKey, CipherKind, Role},
    driver::{
        Arrived, Asked, ChannelEnd, Host, Signal, Tunnel, TunnelHandle, TunnelSettings, client_handshake,
        server_handshake,
    },
    version::ProtocolVersion,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::unconstrained,
    time::timeout,
};

/// What may arrive between a question and its answer: a few turns of the tunnel and what the sockets hold.
/// A tunnel that forgets its peer sends 100 MiB and more.
const MOST: u64 = 32 << 20;
const QUESTIONS: usize = 41;
const PATIENCE: Duration = Duration::from_secs(20);

/// An instance that always has more to say, or a visitor that takes everything.
struct Endless {
    speaks: bool,
    taken: Arc<AtomicU64>,
}

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.speaks {
            return Poll::Pending;
        }
        let room = buffer.remaining();
        buffer.initialize_unfilled();
        buffer.advance(room);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Agent;

impl Host for Agent {
    type Stream = Endless;
    type Arrival = Infallible;
    type Ticket = ();

    fn open(&mut self, _: Option<IpAddr>) -> Option<Arrived<Endless, ()>> {
        let stream = Endless { speaks: true, taken: Arc::default() };
        Some(Arrived { stream, first: Vec::new(), ticket: () })
    }

    fn admit(&mut self, _: Infallible) -> Option<(Option<IpAddr>, Arrived<Endless, ()>)> {
        None
    }

    fn finished(&mut self, _: Endless, (): (), _: ChannelEnd) {}
    fn signal(&mut self, _: Signal) {}
    fn alive(&mut self, _: Duration) {}
}

struct Proxy;

impl Host for Proxy {
    type Stream = Endless;
    type Arrival = Endless;
    type Ticket = ();

    fn open(&mut self, _: Option<IpAddr>) -> Option<Arrived<Endless, ()>> {
        None
    }

    fn admit(&mut self, stream: Endless) -> Option<(Option<IpAddr>, Arrived<Endless, ()>)> {
        Some((None, Arrived { stream, first: Vec::new(), ticket: () }))
    }

    fn finished(&mut self, _: Endless, (): (), _: ChannelEnd) {}
    fn signal(&mut self, _: Signal) {}
    fn alive(&mut self, _: Duration) {}
}

/// The agent's side has a thread and a runtime of its own, as in life.
fn agent(client: TcpStream, key: AesKey, iv: AesIv) -> thread::JoinHandle<()> {
    let client = client.into_std().unwrap();
    thread::spawn(move || {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
            let mut client = TcpStream::from_std(client).unwrap();
            let ciphers =
                client_handshake(&mut client, b"tok", CipherKind::AesGcmSiv, &key, &iv).await.unwrap();
            let settings = TunnelSettings::default();
            let (tunnel, _handle) =
                Tunnel::new(Role::Client, client, ciphers, ProtocolVersion::V2, settings, Agent);
            tokio::spawn(unconstrained(tunnel)).await.unwrap();
        });
    })
}

/// The median, for the machine may take its threads away in the middle of a question.
async fn usual_wait(proxy: &TunnelHandle<Endless>, taken: &AtomicU64) -> u64 {
    let mut waits = Vec::new();
    for _ in 0..QUESTIONS {
        let before = taken.load(Ordering::Relaxed);
        timeout(PATIENCE, proxy.probe()).await.unwrap().unwrap();
        waits.push(taken.load(Ordering::Relaxed) - before);
    }
    waits.sort_unstable();
    waits.get(QUESTIONS / 2).copied().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_never_rests_hears_its_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (key, iv) = (AesKey([7; 32]), AesIv([9; 16]));
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(connect, listener.accept());
    let mut server = server.unwrap().0;
    let agent = agent(client.unwrap(), AesKey([7; 32]), AesIv([9; 16]));
    server.read_exact(&mut [0; 3]).await.unwrap();
    let ciphers = server_handshake(&mut server, CipherKind::AesGcmSiv, &key, &iv).await.unwrap();
    let (tunnel, proxy) =
        Tunnel::new(Role::Server, server, ciphers, ProtocolVersion::V2, TunnelSettings::default(), Proxy);
    let ended = tokio::spawn(unconstrained(tunnel));
    let taken = Arc::<AtomicU64>::default();
    assert!(proxy.send_visitor(Endless { speaks: false, taken: Arc::clone(&taken) }).is_ok());

    let wait = usual_wait(&proxy, &taken).await;

    assert!(taken.load(Ordering::Relaxed) > 1 << 20, "the instance must have been busy all the time");
    println!("{wait} bytes between a question and its answer");
    assert!(wait <= MOST, "{wait} bytes came between a question and its answer");
    proxy.end(Asked::Stopping);
    timeout(PATIENCE, ended).await.unwrap().unwrap();
    agent.join().unwrap();
}
