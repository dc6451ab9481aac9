//! Sessions from a session API over real TLS: one that says what the test wants.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use latchkey_agent::certificates::CertificateFacts;
use latchkey_agent::identity::{Identity, hex};
use latchkey_agent::reconnect::Refusal;
use latchkey_agent::session::join::{Bundle, Join};
use latchkey_agent::session::{Report, Session, SessionError, SessionSource};
use latchkey_agent::state_folder::StateFolder;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::DigitallySignedStruct;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const NAME: &str = "connect.ui.example.com";

/// What came in: path, body, hash of the client's public key.
type Heard = (String, Value, String);

struct Api {
    server: String,
    ca: String,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Api {
    /// Answers each request with the next of `answers`.
    async fn answering(answers: &[(u16, Value)]) -> Self {
        let ca = issuer();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.into()]).unwrap().signed_by(&key, &ca).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(AnyKey(
                aws_lc_rs::default_provider().signature_verification_algorithms,
            )))
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self {
            server: listener.local_addr().unwrap().to_string(),
            ca: ca.pem(),
            answers: Arc::new(Mutex::new(answers.to_vec().into())),
            heard: Arc::default(),
        };
        let (answers, heard) = (api.answers.clone(), api.heard.clone());
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(tcp).await else { continue };
                let shown = &stream.get_ref().1.peer_certificates().unwrap()[0];
                let (_, shown) = x509_parser::parse_x509_certificate(shown).unwrap();
                let key = hex(&Sha256::digest(shown.public_key().raw));
                let (answers, heard) = (answers.clone(), heard.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answers, heard, key) = (answers.clone(), heard.clone(), key.clone());
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        heard.lock().unwrap().push((path, serde_json::from_slice(&body).unwrap(), key));
                        let (status, body) =
                            answers.lock().unwrap().pop_front().expect("no more was to be asked");
                        let mut response = Response::builder().status(status);
                        if [403, 409, 429].contains(&status) {
                            response = response.header("retry-after", "17");
                        }
                        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        api
    }

    fn bundle(&self, ca: &str, join_token: Option<&str>) -> Bundle {
        let bundle = json!({"server": self.server, "serverName": NAME, "ca": ca, "joinToken": join_token});
        serde_json::from_value(bundle).unwrap()
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

/// As the real one: any key may show itself, the table decides.
#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn issued() -> (u16, Value) {
    let session = json!({
        "token": "gAAAA-token", "aesKey": "01".repeat(32), "aesIv": "02".repeat(16), "protocolVersion": 2,
        "cipher": "aes-gcm-siv", "server": null, "hostnames": ["home.example.com"], "validUntil": 2_000_000_000,
        "session": "s1", "instance": "homes/lake-house",
    });
    (200, session)
}

struct Asking {
    source: SessionSource,
    key: String,
    _state: tempfile::TempDir,
}

impl Asking {
    fn with(bundle: Bundle) -> Self {
        let state = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_make(&StateFolder::open(state.path()).unwrap()).unwrap();
        let key = identity.public_key_sha256();
        Self {
            source: SessionSource::Api(Box::new(Join::new(bundle, identity).unwrap())),
            key,
            _state: state,
        }
    }

    async fn ask(&self) -> Result<Session, SessionError> {
        self.source.obtain(&Report::default()).await
    }
}

#[tokio::test]
async fn a_session_is_asked_for_with_our_key_and_our_facts() {
    let api = Api::answering(&[issued()]).await;
    let asking = Asking::with(api.bundle(&api.ca, None));
    let report = Report {
        product: Some("home-assistant-core".into()),
        version: Some("2026.11.1".into()),
        certificate: Some(CertificateFacts {
            fingerprint_sha256: "ab".repeat(32),
            public_key_sha256: "cd".repeat(32),
            names: vec!["home.example.com".into()],
            issuer: "CN=home.example.com".into(),
            not_after: "2027-01-01T00:00:00Z".into(),
            not_after_unix: 1_798_761_600,
        }),
    };
    let session = asking.source.obtain(&report).await.unwrap();
    assert_eq!(*session.token, "gAAAA-token");
    assert_eq!(session.server, api.server, "null means the same address");
    assert_eq!(session.hostnames.unwrap(), ["home.example.com"]);
    let (path, body, key) = api.heard().remove(0);
    assert_eq!(path, "/v1/session");
    assert_eq!(key, asking.key);
    assert_eq!(body["version"], "2026.11.1");
    assert_eq!(body["product"], "home-assistant-core");
    assert_eq!(body["protocolVersion"], 2);
    assert_eq!(body["cipher"], "aes-gcm-siv");
    assert_eq!(body["certificate"]["fingerprintSha256"], "ab".repeat(32));
    assert_eq!(body["certificate"]["notAfter"], "2027-01-01T00:00:00Z");
}

#[tokio::test]
async fn an_unknown_key_enrols_once_with_the_join_token() {
    let unknown = (401, json!({"title": "Unknown key"}));
    let api = Api::answering(&[unknown.clone(), (200, json!({})), unknown.clone(), issued(), unknown]).await;
    let asking = Asking::with(api.bundle(&api.ca, Some("join-me")));
    asking.ask().await.unwrap();
    let heard = api.heard();
    let paths: Vec<_> = heard.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(
        paths,
        ["/v1/session", "/v1/enrol", "/v1/session", "/v1/session"],
        "the table may take a moment"
    );
    assert_eq!(heard[1].1, json!({"joinToken": "join-me", "publicKeySha256": asking.key}));

    let error = asking.ask().await.unwrap_err();
    assert_eq!(error.refusal(), Some((Refusal::UnknownKey, None)));
    assert!(error.to_string().contains(&asking.key), "{error}");
    assert_eq!(api.heard().len(), 5, "a token that was used is not sent again");
}

#[tokio::test]
async fn a_proxy_that_enrols_nobody_says_so() {
    let refused = (501, json!({"title": "No enrolment", "detail": "Add the key to agentKeys."}));
    let unknown = (401, json!({}));
    let api = Api::answering(&[unknown.clone(), refused, unknown]).await;
    let asking = Asking::with(api.bundle(&api.ca, Some("join-me")));
    let error = asking.ask().await.unwrap_err();
    assert_eq!(error.refusal(), Some((Refusal::UnknownKey, None)));
    assert!(error.to_string().contains("Add the key to agentKeys."), "{error}");
    assert_eq!(asking.ask().await.unwrap_err().refusal(), Some((Refusal::UnknownKey, None)));
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let blocked =
        json!({"title": "Blocked", "blocks": [{"name": "core-2021-1-4", "reason": "Directory traversal"}]});
    let api = Api::answering(&[(403, json!({})), (409, blocked), (429, json!({})), (500, json!({}))]).await;
    let asking = Asking::with(api.bundle(&api.ca, None));
    let retry_after = Some(Duration::from_secs(17));
    assert_eq!(asking.ask().await.unwrap_err().refusal(), Some((Refusal::Disabled, retry_after)));
    let error = asking.ask().await.unwrap_err();
    assert_eq!(error.refusal(), Some((Refusal::Blocked, retry_after)));
    assert!(error.to_string().contains("core-2021-1-4: Directory traversal"), "{error}");
    assert_eq!(asking.ask().await.unwrap_err().refusal(), Some((Refusal::TooMany, retry_after)));
    assert_eq!(asking.ask().await.unwrap_err().refusal(), None, "500 may pass by itself");
}

#[tokio::test]
async fn a_server_under_another_ca_is_told_nothing() {
    let api = Api::answering(&[issued()]).await;
    let asking = Asking::with(api.bundle(&issuer().pem(), Some("join-me")));
    let error = asking.ask().await.unwrap_err();
    assert_eq!(error.refusal(), None);
    assert!(error.to_string().contains("not the server the bundle was made for"), "{error}");
    assert!(api.heard().is_empty());
}

#[test]
fn a_bundle_without_a_usable_ca_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let identity = Identity::load_or_make(&StateFolder::open(state.path()).unwrap()).unwrap();
    for ca in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let bundle = json!({"server": "h:443", "serverName": NAME, "ca": ca});
        let error = Join::new(serde_json::from_value(bundle).unwrap(), identity.clone()).unwrap_err();
        assert!(error.contains("ca"), "{error}");
    }
}
