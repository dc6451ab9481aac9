//! The handshake over a socket.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::ThreadRandom;
use crate::{
    cipher::{self, AesIv, AesKey, CipherKind, Opener, Role, Sealer},
    handshake::{self, Challenge, HandshakeError, UNIT_LEN},
};

/// Why no tunnel came of a connection.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The connection failed or was closed.
    #[error("the connection ended during the handshake: {0}")]
    Io(#[from] io::Error),
    /// The two sides hold different keys.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// The agent's side: sends the token, answers the challenge. Set a time limit around it.
pub async fn client_handshake(
    stream: &mut TcpStream,
    token: &[u8],
    kind: CipherKind,
    key: &AesKey,
    iv: &AesIv,
) -> Result<(Sealer, Opener), OpeningError> {
    let (mut sealer, mut opener) = cipher::pair(kind, key, iv, Role::Client, &mut ThreadRandom);
    stream.write_all(token).await?;
    let mut challenge = vec![0; UNIT_LEN + kind.overhead()];
    stream.read_exact(&mut challenge).await?;
    let mut answer = Vec::with_capacity(challenge.len());
    handshake::answer(&mut sealer, &mut opener, &mut challenge, &mut ThreadRandom, &mut answer)?;
    stream.write_all(&answer).await?;
    Ok((sealer, opener))
}

/// The proxy's side, after the token was read: asks, and checks the answer. Set a time limit around it.
pub async fn server_handshake(
    stream: &mut TcpStream,
    kind: CipherKind,
    key: &AesKey,
    iv: &AesIv,
) -> Result<(Sealer, Opener), OpeningError> {
    let (mut sealer, mut opener) = cipher::pair(kind, key, iv, Role::Server, &mut ThreadRandom);
    let mut unit = Vec::with_capacity(UNIT_LEN + kind.overhead());
    let challenge = Challenge::ask(&mut sealer, &mut ThreadRandom, &mut unit)?;
    stream.write_all(&unit).await?;
    stream.read_exact(&mut unit).await?;
    challenge.check(&mut opener, &mut unit)?;
    Ok((sealer, opener))
}
