//! One tunnel: connect, show the token, answer the challenge, run.

use std::convert::Infallible;
use std::time::Duration;

use snitun::cipher::Role;
use snitun::driver::{OpeningError, Tunnel, TunnelHandle, TunnelSettings, client_handshake};

use crate::channel::ChannelHost;
use crate::session::Session;
use crate::tcp::connect;

/// Connecting and the handshake together.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// No tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// No connection.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// Where to.
        server: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The server hung up: it does not accept the token, or has another key.
    #[error("{server} did not accept the session: {source}")]
    Handshake {
        /// Which.
        server: String,
        /// How it showed.
        source: OpeningError,
    },
    /// It took too long.
    #[error("{server} did not answer within {} s", TIME_LIMIT.as_secs())]
    TooSlow {
        /// Which.
        server: String,
    },
}

/// A tunnel that is to be polled, and its handle.
pub type Opened = (Tunnel<ChannelHost>, TunnelHandle<Infallible>);

/// Opens a tunnel.
pub async fn open(
    session: &Session,
    settings: TunnelSettings,
    host: ChannelHost,
) -> Result<Opened, TunnelError> {
    let server = || session.server.clone();
    let opening = async {
        let mut stream = connect(&session.server)
            .await
            .map_err(|source| TunnelError::Connect { server: server(), source })?;
        let Session { token, aes_key, aes_iv, cipher, .. } = session;
        let ciphers = client_handshake(&mut stream, token.as_bytes(), *cipher, aes_key, aes_iv)
            .await
            .map_err(|source| TunnelError::Handshake { server: server(), source })?;
        // The token was issued for what the session says the server speaks, so that is what both sides go by.
        Ok(Tunnel::new(Role::Client, stream, ciphers, session.protocol_version, settings, host))
    };
    tokio::time::timeout(TIME_LIMIT, opening)
        .await
        .unwrap_or_else(|_| Err(TunnelError::TooSlow { server: server() }))
}
