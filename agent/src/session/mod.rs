//! Sessions: what opens a tunnel. Either the session API issues them (`join`), or a file holds one that a stock
//! issuer handed out (`file`).

use std::fmt;
use std::time::Duration;

use snitun::cipher::{AesIv, AesKey, CipherKind};
use snitun::version::ProtocolVersion;
use zeroize::Zeroizing;

use crate::certificates::CertificateFacts;
use crate::reconnect::Refusal;

pub mod client;
pub mod enrolment;
pub mod file;
pub mod join;
pub mod problem;

use problem::Problem;

/// What opens a tunnel, and what is known about it.
pub struct Session {
    /// Handed to the server as it is; only the server can read it.
    pub token: Zeroizing<String>,
    /// Key of the tunnel's cipher.
    pub aes_key: AesKey,
    /// Where its stream starts.
    pub aes_iv: AesIv,
    /// What the server speaks.
    pub protocol_version: ProtocolVersion,
    /// The tunnel's cipher.
    pub cipher: CipherKind,
    /// `HOST:PORT` of the server.
    pub server: String,
    /// The instance's hostnames, where the issuer tells them.
    pub hostnames: Option<Vec<String>>,
    /// For logs: the session's id and the instance.
    pub id: Option<String>,
    /// `namespace/name`.
    pub instance: Option<String>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("server", &self.server)
            .field("protocol_version", &self.protocol_version)
            .field("cipher", &self.cipher)
            .field("id", &self.id)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// What an agent tells about itself when it asks for a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What runs behind the agent.
    pub product: Option<String>,
    /// Its version; `None` while it cannot be read.
    pub version: Option<String>,
    /// The certificate visitors see; `None` in passthrough.
    pub certificate: Option<CertificateFacts>,
}

/// No session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The session file.
    #[error("{0}")]
    File(String),
    /// Network or TLS, or an answer that makes no sense; may pass by itself.
    #[error("{0}")]
    Unreachable(String),
    /// The session API said no.
    #[error("{problem}")]
    Refused {
        /// For the state machine.
        refusal: Refusal,
        /// When to ask again, if it said so.
        retry_after: Option<Duration>,
        /// For people.
        problem: Problem,
    },
}

impl SessionError {
    /// How it counts for the next attempt.
    pub fn refusal(&self) -> Option<(Refusal, Option<Duration>)> {
        match self {
            Self::Refused { refusal, retry_after, .. } => Some((*refusal, *retry_after)),
            Self::File(_) | Self::Unreachable(_) => None,
        }
    }
}

/// Where sessions come from.
#[derive(Debug)]
pub enum SessionSource {
    /// A file, read again each time.
    File(file::SessionFile),
    /// The session API.
    Api(Box<join::Join>),
}

/// No exchange with the session API takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(20);

impl SessionSource {
    /// A session for the next tunnel.
    pub async fn obtain(&self, report: &Report) -> Result<Session, SessionError> {
        match self {
            Self::File(file) => file.read().await,
            Self::Api(join) => {
                tokio::time::timeout(TIME_LIMIT, join.session(report)).await.unwrap_or_else(|_| {
                    Err(SessionError::Unreachable(format!(
                        "{} took longer than {} s to answer",
                        join.server(),
                        TIME_LIMIT.as_secs()
                    )))
                })
            }
        }
    }

    /// Does anybody hear what we report?
    pub fn reports(&self) -> bool {
        matches!(self, Self::Api(_))
    }
}
