//! HTTPS to the session API: our certificate shows who we are, and the bundle's CA alone vouches for the server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::SessionError;
use crate::identity::Identity;
use crate::tcp::connect;

const CONNECT_TIME_LIMIT: Duration = Duration::from_secs(10);
const LARGEST_BODY: usize = 256 * 1024;

/// An answer of the session API.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// How long to wait, when it says so.
    pub retry_after: Option<Duration>,
    /// The body, which may hold a session's secrets.
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A client for one server. Each request has its own connection: they are rare.
pub struct ApiClient {
    server: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiClient").field("server", &self.server).finish_non_exhaustive()
    }
}

impl ApiClient {
    /// `ca` is PEM; only certificates under it are accepted.
    pub fn new(server: &str, server_name: &str, ca: &str, identity: &Identity) -> Result<Self, String> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| format!("serverName `{server_name}` is not a hostname"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("ca: {error}"))?;
            roots.add(certificate).map_err(|error| format!("ca: {error}"))?;
        }
        if roots.is_empty() {
            return Err("ca holds no certificate".into());
        }
        let (chain, key) = identity.client_certificate();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the agent's key cannot be used for TLS: {error}"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { server: server.to_owned(), name, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Posts JSON and gathers the answer.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Reply, SessionError> {
        let unreachable =
            |what: String| SessionError::Unreachable(format!("session API at {}: {what}", self.server));
        let body = serde_json::to_vec(body).map_err(|error| unreachable(error.to_string()))?;

        let connected = tokio::time::timeout(CONNECT_TIME_LIMIT, async {
            let tcp = connect(&self.server).await?;
            self.tls.connect(self.name.clone(), tcp).await
        });
        let stream = match connected.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(explain_tls(&error))),
            Err(_) => return Err(unreachable("connecting took too long".into())),
        };

        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, self.name.to_str().as_ref())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("latchkey-agent/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unreachable(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let answer = async move {
            let response = sender.send_request(request).await.map_err(|error| explain_http(&error))?;
            let status = response.status().as_u16();
            let retry_after = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs);
            let body = Limited::new(response.into_body(), LARGEST_BODY).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes().to_vec();
            Ok(Reply { status, retry_after, body: Zeroizing::new(body) })
        };
        // The connection moves bytes while the answer is awaited, and goes with it: nothing is left running.
        let mut answer = std::pin::pin!(answer);
        let mut connection = std::pin::pin!(connection);
        let reply = tokio::select! {
            biased;
            reply = &mut answer => reply,
            _ = &mut connection => answer.await,
        };
        reply.map_err(unreachable)
    }
}

fn explain_tls(error: &std::io::Error) -> String {
    let certificate = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    if certificate {
        format!(
            "{error}: this is not the server the bundle was made for, or its CA has changed (ask for a new bundle)"
        )
    } else {
        error.to_string()
    }
}

fn explain_http(error: &hyper::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
