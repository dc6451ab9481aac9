//! One idle tunnel: token, handshake, then only pings and pongs.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use snitun::{
    cipher::{self, AesIv, AesKey, BadUnit, CipherKind, Opener, Role, Sealer},
    frame::{ChannelId, Flow, HEADER_LEN, Header},
    handshake::{self, HandshakeError, UNIT_LEN},
    random::Random,
    token::{FernetKeys, LatchkeyClaims, Token, TokenError},
    version::ProtocolVersion,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// As the stock client does it.
const PING_AFTER: Duration = Duration::from_secs(50);
/// From SYN to the first frame; what takes longer counts as failed.
const OPENING: Duration = Duration::from_secs(10);

/// Why a tunnel did not open, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    BadUnit(#[from] BadUnit),
    #[error("not open after {} s", OPENING.as_secs())]
    Slow,
    #[error("silent for {} s after a ping", PING_AFTER.as_secs())]
    Silent,
}

/// The operating system's generator, per thread.
pub(crate) struct ThreadRandom;

impl Random for ThreadRandom {
    fn fill(&mut self, out: &mut [u8]) {
        rand::fill(out);
    }
}

/// What a tunnel needs to open, again and again.
pub(crate) struct Credentials {
    token: String,
    key: AesKey,
    iv: AesIv,
}

impl Credentials {
    /// A session for `hostname`, protocol version 2, `aes-gcm-siv`, as our agents have it. Where proxies have a table,
    /// `claims` say which instance's it is.
    pub(crate) fn make(
        hostname: String,
        claims: Option<LatchkeyClaims>,
        keys: &FernetKeys,
        now_unix: u64,
    ) -> Result<Self, TokenError> {
        let mut random = ThreadRandom;
        let (key, iv) = (AesKey(random.array()), AesIv(random.array()));
        #[expect(clippy::cast_precision_loss, reason = "Unix seconds are far below 2^52")]
        let token = Token {
            valid: (now_unix + 86_400) as f64,
            hostname,
            aes_key: key.clone(),
            aes_iv: iv.clone(),
            protocol_version: ProtocolVersion::V2,
            cipher: CipherKind::AesGcmSiv,
            alias: Vec::new(),
            extra: claims,
        };
        Ok(Self { token: token.seal(keys, now_unix, random.array())?, key, iv })
    }
}

/// A tunnel from which a pong has come.
pub(crate) struct IdleTunnel {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
}

impl IdleTunnel {
    /// Connects from `source` and waits for the first live answer.
    pub(crate) async fn open(
        server: SocketAddr,
        source: IpAddr,
        credentials: &Credentials,
    ) -> Result<Self, TunnelError> {
        timeout(OPENING, Self::open_at_leisure(server, source, credentials))
            .await
            .unwrap_or(Err(TunnelError::Slow))
    }

    async fn open_at_leisure(
        server: SocketAddr,
        source: IpAddr,
        credentials: &Credentials,
    ) -> Result<Self, TunnelError> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind((source, 0).into())?;
        let mut stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        stream.write_all(credentials.token.as_bytes()).await?;
        let random = &mut ThreadRandom;
        let (mut sealer, mut opener) =
            cipher::pair(CipherKind::AesGcmSiv, &credentials.key, &credentials.iv, Role::Client, random);
        let mut challenge = vec![0; UNIT_LEN + opener.overhead()];
        stream.read_exact(&mut challenge).await?;
        let mut answer = Vec::new();
        handshake::answer(&mut sealer, &mut opener, &mut challenge, random, &mut answer)?;
        stream.write_all(&answer).await?;
        let mut tunnel = Self { stream, sealer, opener };
        tunnel.send_ping(b"ping", ChannelId(random.array())).await?;
        tunnel.frame().await?;
        Ok(tunnel)
    }

    /// Keeps the tunnel until it ends; the error says why it did.
    pub(crate) async fn hold(&mut self) -> TunnelError {
        let mut waiting_for_pong = false;
        loop {
            // A partial frame lost to the time-out would cost the step: only the wait for the first byte is timed.
            let ended = match timeout(PING_AFTER, self.stream.readable()).await {
                Ok(Ok(())) => self.frame().await,
                Ok(Err(error)) => Err(error.into()),
                Err(_) if waiting_for_pong => Err(TunnelError::Silent),
                Err(_) => {
                    waiting_for_pong = true;
                    match self.send_ping(b"ping", ChannelId(ThreadRandom.array())).await {
                        Ok(()) => continue,
                        Err(error) => Err(error),
                    }
                }
            };
            match ended {
                Ok(()) => waiting_for_pong = false,
                Err(error) => return error,
            }
        }
    }

    /// Reads one frame; answers a ping, passes over anything else.
    async fn frame(&mut self) -> Result<(), TunnelError> {
        let mut unit = [0; 64];
        let length = HEADER_LEN + self.opener.overhead();
        let unit = unit.get_mut(..length).ok_or(BadUnit)?;
        self.stream.read_exact(unit).await?;
        let plain: &[u8] = self.opener.open(unit)?;
        let header = Header::decode(plain.try_into().map_err(|_| BadUnit)?);
        match header.flow {
            Flow::Ping if !header.extra.starts_with(b"pong") => self.send_ping(b"pong", header.channel).await,
            Flow::New => self.pass_over(u64::from(header.size) + self.opener.overhead() as u64).await,
            _ => self.pass_over(header.size.into()).await,
        }
    }

    async fn pass_over(&mut self, bytes: u64) -> Result<(), TunnelError> {
        if bytes > 0 {
            tokio::io::copy(&mut (&mut self.stream).take(bytes), &mut tokio::io::sink()).await?;
        }
        Ok(())
    }

    async fn send_ping(&mut self, word: &[u8; 4], channel: ChannelId) -> Result<(), TunnelError> {
        let mut extra = ThreadRandom.array();
        for (to, from) in extra.iter_mut().zip(word) {
            *to = *from;
        }
        let header = Header { channel, flow: Flow::Ping, size: 0, extra };
        let mut unit = Vec::new();
        self.sealer.append(&header.encode(), &mut ThreadRandom, &mut unit)?;
        self.stream.write_all(&unit).await?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
