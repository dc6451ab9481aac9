//! The agent's tunnels against a proxy that does what the test wants, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use byte_relay::proxy_protocol::{Answer, read};
use latchkey_agent::channel::{Channels, Passthrough, Way};
use latchkey_agent::keep_connected::{Parts, keep_connected};
use latchkey_agent::metrics::Metrics;
use latchkey_agent::session::SessionSource;
use latchkey_agent::session::file::SessionFile;
use latchkey_agent::target::Target;
use snitun::cipher::{AesIv, AesKey, CipherKind, Role};
use snitun::driver::{
    Arrived, Asked, ChannelEnd, Host, Signal, Tunnel, TunnelHandle, TunnelSettings, server_handshake,
};
use snitun::version::ProtocolVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(10);
const TOKEN: &str = "gAAAA-a-token";

type Visitor = (Option<IpAddr>, DuplexStream);

struct ProxyHost {
    signals: mpsc::UnboundedSender<Signal>,
}

impl Host for ProxyHost {
    type Stream = DuplexStream;
    type Arrival = Visitor;
    type Ticket = ();

    fn open(&mut self, _: Option<IpAddr>) -> Option<Arrived<DuplexStream, ()>> {
        None
    }

    fn admit(&mut self, (address, stream): Visitor) -> Option<(Option<IpAddr>, Arrived<DuplexStream, ()>)> {
        Some((address, Arrived { stream, first: Vec::new(), ticket: () }))
    }

    fn finished(&mut self, _: DuplexStream, (): (), _: ChannelEnd) {}

    fn signal(&mut self, signal: Signal) {
        let _ = self.signals.send(signal);
    }

    fn alive(&mut self, _: Duration) {}
}

/// A tunnel as the proxy sees it.
struct Accepted {
    token: String,
    handle: TunnelHandle<Visitor>,
    signals: mpsc::UnboundedReceiver<Signal>,
    ended: JoinHandle<()>,
}

impl Accepted {
    fn visitor(&self, address: Option<IpAddr>) -> DuplexStream {
        let (ours, theirs) = duplex(64 * 1024);
        assert!(self.handle.send_visitor((address, theirs)).is_ok(), "the tunnel is gone");
        ours
    }

    async fn hears(&mut self, wanted: Signal) {
        while tokio::time::timeout(LONG, self.signals.recv()).await.unwrap() != Some(wanted) {}
    }

    async fn ends(self) {
        tokio::time::timeout(LONG, self.ended).await.expect("the tunnel ends").unwrap();
    }
}

struct Setting {
    cipher: CipherKind,
    version: ProtocolVersion,
    send_proxy: bool,
    grace: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        Self { cipher: CipherKind::AesCbc, version: ProtocolVersion::V1, send_proxy: false, grace: LONG }
    }
}

struct World {
    setting: Setting,
    proxy: TcpListener,
    instance: TcpListener,
    session: PathBuf,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    agent: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn key() -> AesKey {
    AesKey([7; 32])
}

fn iv() -> AesIv {
    AesIv([9; 16])
}

impl World {
    async fn new(setting: Setting) -> Self {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let instance = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let session = dir.path().join("session.json");
        write_session(&session, TOKEN, &setting);
        let target = Target::resolve(instance.local_addr().unwrap().to_string().parse().unwrap()).await;
        let metrics = Arc::new(Metrics::default());
        let way = Way::Passthrough(Passthrough::new(target, setting.send_proxy));
        let parts = Parts {
            sessions: SessionSource::File(SessionFile::new(
                &session,
                &proxy.local_addr().unwrap().to_string(),
            )),
            channels: Channels::new(way, metrics.clone()),
            certificates: None,
            product: None,
            version: watch::channel(None).1,
            tunnel: TunnelSettings::default(),
            metrics: metrics.clone(),
        };
        let stop = CancellationToken::new();
        let agent = tokio::spawn(keep_connected(parts, stop.clone(), setting.grace));
        Self { setting, proxy, instance, session, metrics, stop, agent, _dir: dir }
    }

    /// The next tunnel the agent opens.
    async fn tunnel(&self) -> Accepted {
        tokio::time::timeout(LONG, self.accept()).await.expect("the agent opens a tunnel")
    }

    async fn accept(&self) -> Accepted {
        let (mut stream, _) = self.proxy.accept().await.unwrap();
        let mut token = vec![0; TOKEN.len()];
        stream.read_exact(&mut token).await.unwrap();
        let ciphers = server_handshake(&mut stream, self.setting.cipher, &key(), &iv()).await.unwrap();
        let (sender, signals) = mpsc::unbounded_channel();
        let host = ProxyHost { signals: sender };
        let (tunnel, handle) =
            Tunnel::new(Role::Server, stream, ciphers, self.setting.version, TunnelSettings::default(), host);
        let ended = tokio::spawn(async move {
            tunnel.await;
        });
        Accepted { token: String::from_utf8(token).unwrap(), handle, signals, ended }
    }

    /// The instance's side of the next connection.
    async fn connection(&self) -> tokio::net::TcpStream {
        tokio::time::timeout(LONG, self.instance.accept()).await.expect("a visitor arrives").unwrap().0
    }
}

fn write_session(path: &PathBuf, token: &str, setting: &Setting) {
    let session = serde_json::json!({
        "token": token, "aes_key": key().to_hex(), "aes_iv": iv().to_hex(),
        "protocol_version": setting.version.number(), "cipher": setting.cipher.name(),
    });
    std::fs::write(path, session.to_string()).unwrap();
}

async fn say(from: &mut (impl AsyncWriteExt + Unpin), to: &mut (impl AsyncReadExt + Unpin), what: &[u8]) {
    let both = async {
        from.write_all(what).await.unwrap();
        let mut heard = vec![0; what.len()];
        to.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, what);
    };
    tokio::time::timeout(LONG, both).await.expect("what was said arrives");
}

#[tokio::test]
async fn bytes_pass_in_every_version_and_cipher() {
    for version in [ProtocolVersion::V0, ProtocolVersion::V1, ProtocolVersion::V2] {
        for cipher in CipherKind::ALL {
            let world = World::new(Setting { cipher, version, ..Setting::default() }).await;
            let tunnel = world.tunnel().await;
            let mut visitor = tunnel.visitor(Some("203.0.113.9".parse().unwrap()));
            visitor.write_all(b"hello").await.unwrap();
            let mut instance = world.connection().await;
            let mut heard = [0; 5];
            instance.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"hello");
            say(&mut instance, &mut visitor, b"and back").await;
            drop(instance);
            let mut rest = Vec::new();
            tokio::time::timeout(LONG, visitor.read_to_end(&mut rest)).await.unwrap().unwrap();
            assert!(rest.is_empty());
        }
    }
}

#[tokio::test]
async fn the_proxy_header_names_the_visitor() {
    for (version, address) in [(ProtocolVersion::V1, "203.0.113.9"), (ProtocolVersion::V2, "2001:db8::9")] {
        let address: IpAddr = address.parse().unwrap();
        let world = World::new(Setting { version, send_proxy: true, ..Setting::default() }).await;
        let tunnel = world.tunnel().await;
        let mut visitor = tunnel.visitor(Some(address));
        visitor.write_all(b"hello").await.unwrap();
        let mut instance = world.connection().await;
        let mut heard = Vec::new();
        while !heard.ends_with(b"hello") {
            assert_ne!(instance.read_buf(&mut heard).await.unwrap(), 0);
        }
        let consumed = heard.len() - 5;
        let source = Some(SocketAddr::new(address, 0));
        assert_eq!(read(&heard), Answer::Header { source, consumed });
    }
}

#[tokio::test]
async fn a_lost_tunnel_comes_back_with_the_session_of_the_day() {
    let world = World::new(Setting::default()).await;
    let mut tunnel = world.tunnel().await;
    tunnel.hears(Signal::Latchkey).await;
    assert_eq!(tunnel.token, TOKEN);
    let another = TOKEN.replace("a-token", "another");
    write_session(&world.session, &another, &world.setting);
    tunnel.handle.end(Asked::Replaced);
    tunnel.ends().await;
    let second = world.tunnel().await;
    assert_eq!(second.token, another);
    assert_eq!(world.metrics.tunnels_opened.get(), 2);
}

#[tokio::test]
async fn go_away_makes_the_second_tunnel_before_the_first_breaks() {
    let world = World::new(Setting::default()).await;
    let mut first = world.tunnel().await;
    let mut old = first.visitor(None);
    old.write_all(b"1").await.unwrap();
    let mut old_instance = world.connection().await;
    first.handle.signal(Signal::GoAway);

    let second = world.tunnel().await;
    let mut new = second.visitor(None);
    new.write_all(b"2").await.unwrap();
    let mut new_instance = world.connection().await;
    let mut heard = [0];
    new_instance.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"2");
    old_instance.read_exact(&mut heard).await.unwrap();
    say(&mut old_instance, &mut old, b"still here").await;
    assert!(!first.handle.is_closed());
    assert!(world.metrics.is_connected());

    drop(old_instance);
    // Whoever is on the way through the first comes in, until its proxy knows better.
    let mut late = first.visitor(None);
    late.write_all(b"3").await.unwrap();
    world.connection().await.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"3");
    first.hears(Signal::GoAway).await;
    first.ends().await;
    say(&mut new_instance, &mut new, b"here as well").await;
    assert!(!second.handle.is_closed());
}

#[tokio::test]
async fn a_conflict_makes_the_agent_wait() {
    let world = World::new(Setting::default()).await;
    let tunnel = world.tunnel().await;
    tunnel.handle.signal(Signal::Conflict);
    tunnel.ends().await;
    let again = tokio::time::timeout(Duration::from_millis(1500), world.accept()).await;
    assert!(again.is_err(), "it came back at once, to be told the same");
    assert!(!world.metrics.is_connected());
}

#[tokio::test]
async fn an_absent_instance_closes_its_visitors() {
    let mut world = World::new(Setting::default()).await;
    let tunnel = world.tunnel().await;
    world.instance = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut visitor = tunnel.visitor(None);
    let _ = visitor.write_all(b"hello").await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LONG, visitor.read_to_end(&mut rest)).await.expect("the visitor is let go");
    assert!(rest.is_empty());
    assert!(!tunnel.handle.is_closed(), "the tunnel stays");
}

#[tokio::test]
async fn told_to_stop_it_lets_visitors_finish() {
    let world = World::new(Setting::default()).await;
    let mut tunnel = world.tunnel().await;
    let mut visitor = tunnel.visitor(None);
    visitor.write_all(b"1").await.unwrap();
    let mut instance = world.connection().await;
    world.stop.cancel();
    tunnel.hears(Signal::GoAway).await;
    let mut heard = [0];
    instance.read_exact(&mut heard).await.unwrap();

    // Visitors on their way are let in, later ones are not.
    loop {
        let mut late = tunnel.visitor(None);
        let turned_away = tokio::time::timeout(Duration::from_millis(200), late.read(&mut heard)).await;
        if turned_away.is_ok() {
            break;
        }
    }
    say(&mut instance, &mut visitor, b"the rest of the answer").await;
    assert!(!world.agent.is_finished());
    drop(instance);
    tunnel.ends().await;
    tokio::time::timeout(LONG, world.agent).await.expect("the agent ends").unwrap();
}

#[tokio::test]
async fn when_the_grace_is_over_visitors_are_cut() {
    let world = World::new(Setting { grace: Duration::from_millis(300), ..Setting::default() }).await;
    let tunnel = world.tunnel().await;
    let mut visitor = tunnel.visitor(None);
    visitor.write_all(b"1").await.unwrap();
    let _instance = world.connection().await;
    world.stop.cancel();
    tunnel.ends().await;
    tokio::time::timeout(LONG, world.agent).await.expect("the agent ends").unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_take_the_session_is_tried_again() {
    let world = World::new(Setting::default()).await;
    let refuse = async {
        for _ in 0..2 {
            let (mut stream, _) = world.proxy.accept().await.unwrap();
            let mut token = vec![0; TOKEN.len()];
            stream.read_exact(&mut token).await.unwrap();
        }
    };
    tokio::time::timeout(LONG, refuse).await.unwrap();
    world.tunnel().await;
    assert_eq!(world.metrics.attempts_failed.get(), 2);
}
