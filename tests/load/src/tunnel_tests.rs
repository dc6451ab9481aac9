//! The idle tunnel against a server made of the library's own parts.

use std::net::Ipv4Addr;

use snitun::handshake::Challenge;
use tokio::net::TcpListener;

use super::*;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NOW: u64 = 1_800_000_000;

struct Server {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
}

impl Server {
    /// The handshake, up to the client's first frame.
    async fn accept(listener: &TcpListener, token: &Token, token_length: usize) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut vec![0; token_length]).await.unwrap();
        let (mut sealer, mut opener) =
            cipher::pair(token.cipher, &token.aes_key, &token.aes_iv, Role::Server, &mut ThreadRandom);
        let mut unit = Vec::new();
        let challenge = Challenge::ask(&mut sealer, &mut ThreadRandom, &mut unit).unwrap();
        stream.write_all(&unit).await.unwrap();
        let mut answer = vec![0; UNIT_LEN + opener.overhead()];
        stream.read_exact(&mut answer).await.unwrap();
        challenge.check(&mut opener, &mut answer).unwrap();
        Self { stream, sealer, opener }
    }

    async fn receive(&mut self) -> Header {
        let mut unit = vec![0; HEADER_LEN + self.opener.overhead()];
        self.stream.read_exact(&mut unit).await.unwrap();
        let plain: &[u8] = self.opener.open(&mut unit).unwrap();
        Header::decode(plain.try_into().unwrap())
    }

    async fn send(&mut self, header: Header, body: &[u8]) {
        let mut unit = Vec::new();
        self.sealer.append(&header.encode(), &mut ThreadRandom, &mut unit).unwrap();
        unit.extend_from_slice(body);
        self.stream.write_all(&unit).await.unwrap();
    }
}

#[tokio::test]
async fn it_opens_with_the_first_pong_and_answers_pings() {
    let keys = FernetKeys::from_lines(KEY).unwrap();
    let credentials = Credentials::make("inst7.ui.test".into(), None, &keys, NOW).unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let token = Token::open(&keys, credentials.token.as_bytes(), NOW as f64).unwrap();
    assert_eq!(token.hostname, "inst7.ui.test");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let length = credentials.token.len();

    let server = tokio::spawn(async move {
        let mut server = Server::accept(&listener, &token, length).await;
        let ping = server.receive().await;
        assert_eq!((ping.flow, ping.extra.starts_with(b"ping")), (Flow::Ping, true));
        server.send(Header { extra: *b"pong.......", ..ping }, b"").await;
        // A frame with a body is passed over whole, or the ping behind it would not be understood.
        let channel = ChannelId([7; 16]);
        server.send(Header { channel, flow: Flow::Data, size: 5, extra: [0; 11] }, b"hello").await;
        server.send(Header { channel, flow: Flow::Ping, size: 0, extra: *b"ping......." }, b"").await;
        server.receive().await
    });
    let mut tunnel = IdleTunnel::open(address, Ipv4Addr::LOCALHOST.into(), &credentials).await.unwrap();
    // The server hangs up after the pong, and the tunnel says so.
    assert!(matches!(tunnel.hold().await, TunnelError::Io(_)));
    let pong = server.await.unwrap();
    assert_eq!((pong.flow, pong.channel), (Flow::Ping, ChannelId([7; 16])));
    assert!(pong.extra.starts_with(b"pong"));
}
