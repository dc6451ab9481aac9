//! The join bundle, and sessions from the API it names.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use snitun::cipher::{AesIv, AesKey, CipherKind};
use snitun::version::ProtocolVersion;
use zeroize::Zeroizing;

use super::client::{ApiClient, Reply};
use super::enrolment::{Enrolled, enrol};
use super::problem::Problem;
use super::{Report, Session, SessionError};
use crate::identity::Identity;
use crate::reconnect::Refusal;
use crate::target::split_host_port;

/// After enrolling, the table that knows our key may take a moment to reach the server.
const AFTER_ENROLMENT: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// What `latchkey join` hands out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// `HOST:PORT` of the proxy.
    pub server: String,
    /// The name its session API answers on.
    pub server_name: String,
    /// The installation's CA, PEM: no other is trusted.
    pub ca: String,
    /// Registers our key, once.
    #[serde(default)]
    pub join_token: Option<Zeroizing<String>>,
    /// `namespace/name`, for logs.
    #[serde(default)]
    pub instance: Option<String>,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("server", &self.server)
            .field("server_name", &self.server_name)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Bundle {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|error| format!("bundle {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|what| format!("bundle {}: {what}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The parser's own words could quote the join token.
        let bundle: Self = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("line {line} column {column}: expected JSON with server, serverName and ca; ask for a new bundle")
        })?;
        split_host_port(&bundle.server).map_err(|error| format!("server: {error}"))?;
        Ok(bundle)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product: Option<&'a str>,
    agent_version: &'static str,
    protocol_version: u8,
    cipher: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate<'a> {
    fingerprint_sha256: &'a str,
    names: &'a [String],
    issuer: &'a str,
    not_after: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Issued {
    token: Zeroizing<String>,
    aes_key: Zeroizing<String>,
    aes_iv: Zeroizing<String>,
    protocol_version: u64,
    cipher: String,
    #[serde(default)]
    server: Option<String>,
    #[serde(default)]
    hostnames: Option<Vec<String>>,
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    instance: Option<String>,
}

/// Asks the session API that a bundle names.
#[derive(Debug)]
pub struct Join {
    client: ApiClient,
    bundle: Bundle,
    identity: Arc<Identity>,
    /// A join token that was refused, or used, is not sent again.
    token_spent: AtomicBool,
}

impl Join {
    /// Prepares; nothing is sent yet.
    pub fn new(bundle: Bundle, identity: Arc<Identity>) -> Result<Self, String> {
        let client = ApiClient::new(&bundle.server, &bundle.server_name, &bundle.ca, &identity)?;
        Ok(Self { client, bundle, identity, token_spent: AtomicBool::new(false) })
    }

    /// The proxy's address.
    pub fn server(&self) -> &str {
        &self.bundle.server
    }

    /// Asks for a session; enrols when our key is unknown and the bundle has a join token.
    pub async fn session(&self, report: &Report) -> Result<Session, SessionError> {
        let reply = self.ask(report).await?;
        if reply.status != 401 {
            return self.read(&reply);
        }
        let Some(token) = &self.bundle.join_token else { return self.read(&reply) };
        if self.token_spent.load(Ordering::Relaxed) {
            return self.read(&reply);
        }
        match enrol(&self.client, token, &self.identity.public_key_sha256()).await? {
            Enrolled::Yes => tracing::info!("enrolled: this agent's key is registered now"),
            Enrolled::No(problem) => {
                self.token_spent.store(true, Ordering::Relaxed);
                return Err(SessionError::Refused {
                    refusal: Refusal::UnknownKey,
                    retry_after: None,
                    problem,
                });
            }
        }
        self.token_spent.store(true, Ordering::Relaxed);
        let mut reply = self.ask(report).await?;
        for pause in AFTER_ENROLMENT {
            if reply.status != 401 {
                break;
            }
            tokio::time::sleep(pause).await;
            reply = self.ask(report).await?;
        }
        self.read(&reply)
    }

    async fn ask(&self, report: &Report) -> Result<Reply, SessionError> {
        let Report { product, version, certificate } = report;
        let request = Request {
            version: version.as_deref(),
            product: product.as_deref(),
            agent_version: env!("CARGO_PKG_VERSION"),
            protocol_version: ProtocolVersion::V2.number(),
            cipher: CipherKind::AesGcmSiv.name(),
            certificate: certificate.as_ref().map(|facts| Certificate {
                fingerprint_sha256: &facts.fingerprint_sha256,
                names: &facts.names,
                issuer: &facts.issuer,
                not_after: &facts.not_after,
            }),
        };
        self.client.post("/v1/session", &request).await
    }

    fn read(&self, reply: &Reply) -> Result<Session, SessionError> {
        if reply.status == 200 {
            return issued(&reply.body, &self.bundle.server).map_err(|what| {
                SessionError::Unreachable(format!("{} answered a session, but {what}", self.server()))
            });
        }
        let mut problem = Problem::read(reply.status, &reply.body);
        let refusal = match reply.status {
            401 => {
                let hash = self.identity.public_key_sha256();
                let advice = format!(
                    "the proxy does not know this agent's key; add {hash} to the instance's agentKeys"
                );
                problem.detail = Some(match problem.detail.take() {
                    Some(detail) => format!("{detail} ({advice})"),
                    None => advice,
                });
                Refusal::UnknownKey
            }
            403 => Refusal::Disabled,
            409 => Refusal::Blocked,
            429 => Refusal::TooMany,
            _ => return Err(SessionError::Unreachable(format!("{} answered {problem}", self.server()))),
        };
        Err(SessionError::Refused { refusal, retry_after: reply.retry_after, problem })
    }
}

fn issued(body: &[u8], server: &str) -> Result<Session, String> {
    let issued: Issued = serde_json::from_slice(body).map_err(|error| {
        format!("its JSON is not as expected at line {} column {}", error.line(), error.column())
    })?;
    let server = issued.server.unwrap_or_else(|| server.to_owned());
    split_host_port(&server).map_err(|error| format!("server: {error}"))?;
    Ok(Session {
        aes_key: AesKey::from_hex(&issued.aes_key).ok_or("aesKey is not 64 hex digits")?,
        aes_iv: AesIv::from_hex(&issued.aes_iv).ok_or("aesIv is not 32 hex digits")?,
        token: issued.token,
        protocol_version: ProtocolVersion::from_number(issued.protocol_version),
        cipher: issued
            .cipher
            .parse()
            .map_err(|_| format!("its cipher `{}` is unknown here", issued.cipher))?,
        server,
        hostnames: issued.hostnames,
        id: issued.session,
        instance: issued.instance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read() {
        let bundle =
            Bundle::parse(r#"{"server":"h:443","serverName":"connect.x","ca":"PEM","joinToken":"t"}"#)
                .unwrap();
        assert_eq!(bundle.server_name, "connect.x");
        assert_eq!(bundle.join_token.as_deref().map(String::as_str), Some("t"));
    }

    #[test]
    fn a_bad_bundle_is_named_without_its_token() {
        for text in
            [r#"{"joinToken":"secret"}"#, r#"{"server":"h","serverName":"x","ca":"y","joinToken":"secret"}"#]
        {
            let error = Bundle::parse(text).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        let bundle =
            Bundle::parse(r#"{"server":"h:443","serverName":"x","ca":"y","joinToken":"secret"}"#).unwrap();
        assert!(!format!("{bundle:?}").contains("secret"));
    }

    #[test]
    fn a_session_without_a_server_stays_with_the_same() {
        let key = "00".repeat(32);
        let iv = "00".repeat(16);
        let body = |server: &str| {
            format!(
                r#"{{"token":"g","aesKey":"{key}","aesIv":"{iv}","protocolVersion":2,"cipher":"aes-gcm-siv",
                "server":{server},"hostnames":["a.x"],"validUntil":1,"session":"s","instance":"n/a"}}"#
            )
        };
        assert_eq!(issued(body("null").as_bytes(), "h:1").unwrap().server, "h:1");
        let session = issued(body(r#""other:2""#).as_bytes(), "h:1").unwrap();
        assert_eq!(session.server, "other:2");
        assert_eq!(session.protocol_version, ProtocolVersion::V2);
        assert_eq!(session.cipher, CipherKind::AesGcmSiv);
        assert!(issued(body(r#""other""#).as_bytes(), "h:1").is_err());
    }
}
