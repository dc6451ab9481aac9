//! Visitors: a real ClientHello, and what comes of it.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
};

use super::soon;

/// The hello that a TLS client sends to `host`.
pub fn hello(host: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = host.to_owned().try_into().unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// A visitor's connection.
#[derive(Debug)]
pub struct Visitor(BufReader<TcpStream>);

impl Visitor {
    /// Connects and says nothing; `from` is one of the many addresses of this machine.
    pub async fn connect(from: &str, to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        let from: IpAddr = from.parse().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        Self(BufReader::new(soon("a connection", socket.connect(to)).await.unwrap()))
    }

    /// Connects and asks for `host`.
    pub async fn ask(to: SocketAddr, host: &str) -> Self {
        Self::ask_from("127.0.0.1", to, host).await
    }

    /// The same from an address.
    pub async fn ask_from(from: &str, to: SocketAddr, host: &str) -> Self {
        let mut visitor = Self::connect(from, to).await;
        visitor.say(&hello(host, &["h2", "http/1.1"])).await;
        visitor
    }

    /// Says something. A proxy that has hung up already shows in what is read.
    pub async fn say(&mut self, bytes: &[u8]) {
        let said = soon("what is said is taken", self.0.get_mut().write_all(bytes)).await;
        if let Err(error) = said {
            assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        }
    }

    /// What the instance says first: its name, and who it thinks the visitor is.
    pub async fn greeting(&mut self) -> String {
        let mut line = Vec::new();
        soon("a greeting", self.0.read_until(b'\n', &mut line)).await.unwrap();
        assert_eq!(line.pop(), Some(b'\n'), "no greeting but {line:?}");
        String::from_utf8(line).unwrap()
    }

    /// Says something to an instance that repeats it.
    pub async fn echo(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut read, mut write) = tokio::io::split(&mut self.0);
        let mut heard = vec![0; bytes.len()];
        let (said, got) =
            soon("an echo", async { tokio::join!(write.write_all(bytes), read.read_exact(&mut heard)) })
                .await;
        said?;
        got?;
        assert!(heard == bytes, "the echo differs");
        Ok(())
    }

    /// The alert that refuses it, and nothing else, and then an orderly end.
    pub async fn refused(mut self) -> u8 {
        let mut all = Vec::new();
        soon("an end", self.0.read_to_end(&mut all)).await.expect("an orderly end, no reset");
        assert!(all.len() == 7 && all[..6] == [21, 3, 3, 0, 2, 2], "no alert but {all:?}");
        all[6]
    }

    /// The proxy hangs up without a word.
    pub async fn dropped(mut self) {
        let mut all = Vec::new();
        if let Err(error) = soon("an end", self.0.read_to_end(&mut all)).await {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(all, b"", "it was told something");
    }

    /// Takes a challenge as somebody who stole a token: without the key there is no answer.
    pub async fn challenge_answered_wrongly(mut self) {
        let mut challenge = [0; 16];
        soon("a challenge", self.0.read_exact(&mut challenge)).await.unwrap();
        self.say(&[0; 96]).await;
        let mut rest = Vec::new();
        let _ = soon("an end", self.0.read_to_end(&mut rest)).await;
    }
}
