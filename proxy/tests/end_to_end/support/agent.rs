//! An agent in this process: as a stock client, or with the words of ours.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use snitun::{
    cipher::{AesIv, AesKey, CipherKind, Role},
    driver::{
        Arrived, ChannelEnd, Host, Signal, Tunnel, TunnelEnd, TunnelHandle, TunnelSettings, client_handshake,
    },
    token::{LatchkeyClaims, Token},
    version::ProtocolVersion,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpSocket,
    sync::mpsc,
    task::JoinHandle,
};

use super::{process::fernet_keys, soon};

/// A token for hostnames, good for an hour.
pub fn token(hosts: &[&str]) -> Token {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    Token {
        valid: now + 3600.0,
        hostname: hosts[0].to_owned(),
        aes_key: AesKey([1; 32]),
        aes_iv: AesIv([2; 16]),
        protocol_version: ProtocolVersion::V2,
        cipher: CipherKind::AesGcmSiv,
        alias: hosts[1..].iter().map(|&host| host.to_owned()).collect(),
        extra: None,
    }
}

/// A token such as our session API makes: for an instance, a version, and a key that was proved.
pub fn with_claims(host: &str, instance: &str, version: &str, key: &str) -> Token {
    let claims = LatchkeyClaims {
        instance: instance.to_owned(),
        generation: 1,
        version: version.to_owned(),
        agent: "0.1.0".to_owned(),
        key: key.to_owned(),
        session: "s".to_owned(),
    };
    Token { extra: Some(claims), ..token(&[host]) }
}

/// The token as it travels.
pub fn sealed(token: &Token) -> String {
    token.seal(&fernet_keys(), 1_700_000_000, [3; 16]).unwrap()
}

/// An agent with its tunnel.
#[derive(Debug)]
pub struct Agent {
    tunnel: TunnelHandle<Infallible>,
    signals: mpsc::UnboundedReceiver<Signal>,
    running: JoinHandle<TunnelEnd>,
}

impl Agent {
    /// Opens a tunnel; its instance greets visitors as `name`.
    pub async fn open(to: SocketAddr, name: &str, token: &Token) -> Self {
        // Its own address, so that limits of clients concern visitors alone.
        Self::try_open(to, name, token).await.expect("a tunnel")
    }

    /// The same, where the proxy may refuse.
    pub async fn try_open(to: SocketAddr, name: &str, token: &Token) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 77], 0).into())?;
        let mut stream = soon("a connection", socket.connect(to)).await?;
        let bytes = sealed(token);
        let opening =
            client_handshake(&mut stream, bytes.as_bytes(), token.cipher, &token.aes_key, &token.aes_iv);
        let ciphers = soon("a challenge", opening).await.map_err(io::Error::other)?;
        let (said, signals) = mpsc::unbounded_channel();
        let host = Instance { name: name.to_owned(), signals: said };
        let settings = TunnelSettings::default();
        let (future, tunnel) =
            Tunnel::new(Role::Client, stream, ciphers, ProtocolVersion::V2, settings, host);
        let running = tokio::spawn(async move { future.await.0 });
        Ok(Self { tunnel, signals, running })
    }

    /// Tells the proxy that it understands our words.
    pub fn with_our_words(self) -> Self {
        self.tunnel.signal(Signal::Latchkey);
        self
    }

    /// The proxy ended the tunnel. What was under way to it then may be answered with a reset.
    pub async fn ended(self) {
        let end = soon("the tunnel's end", self.running).await.unwrap();
        assert!(matches!(end, TunnelEnd::PeerClosed | TunnelEnd::Io(_)), "{end:?}");
    }

    /// Is the tunnel still there?
    pub fn is_open(&self) -> bool {
        !self.running.is_finished()
    }

    /// Waits for a word.
    pub async fn hears(&mut self, word: Signal) {
        while soon("a word", self.signals.recv()).await.expect("the tunnel is there") != word {}
    }

    /// Hangs up without a word.
    pub async fn die(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

struct Instance {
    name: String,
    signals: mpsc::UnboundedSender<Signal>,
}

impl Host for Instance {
    type Stream = DuplexStream;
    type Arrival = Infallible;
    type Ticket = ();

    fn open(&mut self, visitor: Option<IpAddr>) -> Option<Arrived<DuplexStream, ()>> {
        let (near, far) = duplex(64 << 10);
        let greeting = visitor.map_or_else(|| self.name.clone(), |ip| format!("{} {ip}", self.name));
        drop(tokio::spawn(greet(far, greeting)));
        Some(Arrived { stream: near, first: Vec::new(), ticket: () })
    }

    fn admit(&mut self, never: Infallible) -> Option<(Option<IpAddr>, Arrived<DuplexStream, ()>)> {
        match never {}
    }

    fn finished(&mut self, _: DuplexStream, (): (), _: ChannelEnd) {}

    fn signal(&mut self, signal: Signal) {
        let _ = self.signals.send(signal);
    }

    fn alive(&mut self, _: Duration) {}
}

/// An instance: reads the hello, says a line, and repeats what it hears.
pub async fn greet(stream: impl AsyncRead + AsyncWrite, greeting: String) {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut head = [0; 5];
    if read.read_exact(&mut head).await.is_err() {
        return;
    }
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    if read.read_exact(&mut hello).await.is_ok()
        && write.write_all(format!("{greeting}\n").as_bytes()).await.is_ok()
    {
        let _ = tokio::io::copy(&mut read, &mut write).await;
    }
}
