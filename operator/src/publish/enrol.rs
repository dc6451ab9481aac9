//! Who lets agents in. The answer travels through here; the decision is somebody else's.

use std::fmt;

use futures_util::future::BoxFuture;
use operator_link::wire;
use route_table::{Fingerprint, InstanceId};
use zeroize::Zeroizing;

/// Longest join token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 1_024;

/// Decides whether an agent with a join token gets in.
pub trait Enrolments: Send + Sync {
    /// An agent brings a token and proves the key with this hash. Must give the same answer to the same agent that
    /// asks again, since an answer can be lost on its way.
    fn enrol(&self, token: Zeroizing<String>, key: Fingerprint)
    -> BoxFuture<'_, Result<InstanceId, Refusal>>;
}

/// Why an agent does not get in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Refusal {
    /// What kind of no.
    pub kind: RefusalKind,
    /// A sentence for people.
    pub detail: String,
}

/// What kind of no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The token is unknown, used, or too old.
    Token,
    /// The instance is gone, or the key belongs to another one, or there are too many.
    Conflict,
    /// Not now: try again.
    Unavailable,
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Token => "the join token is not accepted",
            Self::Conflict => "the instance cannot be joined",
            Self::Unavailable => "not now",
        })
    }
}

impl Refusal {
    pub(crate) fn unavailable(detail: &str) -> Self {
        Self { kind: RefusalKind::Unavailable, detail: detail.to_owned() }
    }
}

/// What a proxy asks, checked.
pub(crate) fn read(enrol: wire::Enrol) -> Result<(Zeroizing<String>, Fingerprint), Refusal> {
    let wire::Enrol { number: _, join_token, public_key_sha256 } = enrol;
    let token = Zeroizing::new(join_token);
    if token.len() > MAX_TOKEN_BYTES {
        let detail = format!("The join token is longer than {MAX_TOKEN_BYTES} bytes.");
        return Err(Refusal { kind: RefusalKind::Token, detail });
    }
    let key = public_key_sha256.try_into().map_err(|_| Refusal {
        kind: RefusalKind::Conflict,
        detail: "The hash of the key is no SHA-256.".to_owned(),
    })?;
    Ok((token, Fingerprint::from_bytes(key)))
}

/// The answer as a message.
pub(crate) fn answer(number: u64, answer: Result<InstanceId, Refusal>) -> wire::Enrolled {
    let outcome = match answer {
        Ok(id) => wire::enrolled::Outcome::Instance(id.to_string()),
        Err(Refusal { kind, detail }) => {
            let kind = match kind {
                RefusalKind::Token => wire::RefusalKind::Token,
                RefusalKind::Conflict => wire::RefusalKind::Conflict,
                RefusalKind::Unavailable => wire::RefusalKind::Unavailable,
            };
            wire::enrolled::Outcome::Refusal(wire::Refusal { kind: kind.into(), detail })
        }
    };
    wire::Enrolled { number, outcome: Some(outcome) }
}
