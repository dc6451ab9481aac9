//! The session API over real sockets, TLS and HTTP, with a client that proves a key.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a failed expectation is the message"
)]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use latchkey_proxy::{
    door::ApiDesk as _,
    fernet_keys::FernetKeyRing,
    metrics::{Answer, Metrics, RefusalReason},
    session_api::{
        Allowance, Desk, DeskParts, NoEnrolment, Report, Reports, Rewound, SessionApiSettings, client_key,
    },
};
use rcgen::{CertificateParams, KeyPair};
use route_table::{Fingerprint, RouteTable};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};
use serde_json::{Value, json};
use snitun::token::Token;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const NAME: &str = "connect.ui.example.com";

struct Identity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Identity {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["agent".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .der()
            .clone();
        Self { key, certificate }
    }

    fn fingerprint(&self) -> Fingerprint {
        client_key(&self.certificate).unwrap()
    }
}

#[derive(Default)]
struct Kept(Mutex<Vec<Report>>);

impl Reports for Kept {
    fn reported(&self, report: Report) {
        self.0.lock().unwrap().push(report);
    }
}

struct Server {
    address: SocketAddr,
    ca: Arc<str>,
    keys: Arc<FernetKeyRing>,
    metrics: Arc<Metrics>,
    reports: Arc<Kept>,
}

/// A proxy's front door with nothing behind it but the session API.
async fn server(table: String, settings: SessionApiSettings) -> Server {
    let table = Arc::new(RouteTable::parse(&table).unwrap());
    let keys = Arc::new(FernetKeyRing::random().unwrap());
    let (metrics, reports) = (Arc::new(Metrics::new()), Arc::new(Kept::default()));
    let parts = DeskParts {
        settings,
        domain: None,
        table: Arc::new(move || Arc::clone(&table)),
        keys: keys.clone(),
        metrics: metrics.clone(),
        reports: reports.clone(),
        enrolment: Arc::new(NoEnrolment),
    };
    let desk = Desk::open(parts, None, tokio::runtime::Handle::current()).unwrap();
    let ca = desk.identity().unwrap().ca().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, peer) = listener.accept().await.unwrap();
            // As the front door does: some bytes are read before it is known who takes over.
            let mut first = vec![0; 100];
            let Ok(read) = stream.read(&mut first).await else { continue };
            first.truncate(read);
            desk.serve(stream.into_std().unwrap(), first, peer, None);
        }
    });
    Server { address, ca, keys, metrics, reports }
}

fn routes(key: &Fingerprint, more: &str) -> String {
    format!(
        "revision: 1\ndomain: ui.example.com\nroutes:\n- id: homes/lake\n  generation: 3\n  \
         hostnames: [lake.ui.example.com, lake.example]\n  agentKeys: [\"{key}\"]\n  blocks:\n  \
         - {{name: core-2021-1-4, versions: [\"<=2021.1.4\"], reason: Traversal, moreInfo: \"https://x.example\"}}\n\
         {more}"
    )
}

impl Server {
    async fn tls(&self, identity: Option<&Identity>, alpn: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => {
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
                // Unlike `with_client_auth_cert`, this lets a test show a certificate without its key.
                let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
                let certified = CertifiedKey::new(vec![identity.certificate.clone()], key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let tcp = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(NAME.try_into().unwrap(), tcp).await
    }

    async fn ask(
        &self,
        identity: Option<&Identity>,
        alpn: &str,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> (Response<()>, Value) {
        let stream = TokioIo::new(self.tls(identity, alpn).await.unwrap());
        let uri = if alpn == "h2" { format!("https://{NAME}{path}") } else { path.to_owned() };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", NAME)
            .body(Full::new(body.into()))
            .unwrap();
        let response = if alpn == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let response = Response::from_parts(parts, ());
        if response.status() != 200 {
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert_eq!(value["status"], response.status().as_u16());
        }
        (response, value)
    }

    async fn post(&self, identity: Option<&Identity>, path: &str, body: Value) -> (Response<()>, Value) {
        self.ask(identity, "http/1.1", Method::POST, path, body.to_string()).await
    }

    fn open(&self, token: &Value) -> Token {
        Token::open(&self.keys.current(), token.as_str().unwrap().as_bytes(), 0.0).unwrap()
    }
}

fn wish(version: &str) -> Value {
    json!({"version": version, "agentVersion": "0.1.0", "protocolVersion": 2, "cipher": "aes-gcm-siv"})
}

#[tokio::test]
async fn a_known_key_gets_a_session_over_both_http_versions() {
    let agent = Identity::new();
    let server = server(routes(&agent.fingerprint(), ""), SessionApiSettings::default()).await;
    let mut keys = Vec::new();
    for alpn in ["http/1.1", "h2"] {
        let body = wish("2026.11.1").to_string();
        let (response, reply) = server.ask(Some(&agent), alpn, Method::POST, "/v1/session", body).await;
        assert_eq!(response.status(), 200, "{reply}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(reply["hostnames"], json!(["lake.ui.example.com", "lake.example"]));
        assert_eq!((&reply["instance"], &reply["server"]), (&json!("homes/lake"), &Value::Null));
        let token = server.open(&reply["token"]);
        assert_eq!(reply["aesKey"], token.aes_key.to_hex());
        assert_eq!(reply["aesIv"], token.aes_iv.to_hex());
        assert_eq!(reply["validUntil"].as_f64(), Some(token.valid));
        let claims = token.extra.unwrap();
        assert_eq!((claims.instance.as_str(), claims.generation), ("homes/lake", 3));
        assert_eq!(claims.key, agent.fingerprint().to_string());
        keys.push(token.aes_key);
    }
    assert_ne!(keys[0], keys[1], "key material is fresh");
    assert_eq!(server.metrics.api_answers.count(Answer::Ok), 2);
    let reports = server.reports.0.lock().unwrap();
    assert_eq!(reports[0].version.as_deref(), Some("2026.11.1"));
    assert!(reports[0].session.is_some());
}

#[tokio::test]
async fn a_stock_client_gets_a_token_for_its_own_key() {
    let client = Identity::new();
    let server = server(routes(&client.fingerprint(), ""), SessionApiSettings::default()).await;
    let mut body = json!({"aes_key": "ab".repeat(32), "aes_iv": "cd".repeat(16), "protocol_version": 1});
    let (response, reply) = server.post(Some(&client), "/v1/issue", body.clone()).await;
    assert_eq!(response.status(), 200, "{reply}");
    assert_eq!((&reply["cipher"], &reply["protocol_version"]), (&json!("aes-cbc"), &json!(1)));
    let token = server.open(&reply["token"]);
    assert_eq!(token.aes_key.to_hex(), "ab".repeat(32));
    assert_eq!(token.protocol_version.number(), 1);
    body["cipher"] = json!("aes-gcm");
    let (response, problem) = server.post(Some(&client), "/v1/issue", body).await;
    assert_eq!(response.status(), 422);
    assert!(problem["detail"].as_str().unwrap().contains("nonce"), "{problem}");
}

#[tokio::test]
async fn strangers_are_told_how_to_become_known() {
    let (agent, stranger) = (Identity::new(), Identity::new());
    let server = server(routes(&agent.fingerprint(), ""), SessionApiSettings::default()).await;
    let (response, problem) = server.post(Some(&stranger), "/v1/session", wish("1")).await;
    assert_eq!(response.status(), 401);
    assert!(response.headers().contains_key("www-authenticate"));
    let hash = stranger.fingerprint().to_string();
    assert!(problem["detail"].as_str().unwrap().contains(&hash), "{problem}");
    let (response, _) = server.post(None, "/v1/session", wish("1")).await;
    assert_eq!(response.status(), 401);
    let enrol = json!({"joinToken": "secret", "publicKeySha256": hash});
    let (response, problem) = server.post(Some(&stranger), "/v1/enrol", enrol).await;
    assert_eq!(response.status(), 501);
    assert!(problem["detail"].as_str().unwrap().contains(&format!("add {hash} to agentKeys")), "{problem}");
    assert!(server.reports.0.lock().unwrap().is_empty(), "strangers report nothing");
}

#[tokio::test]
async fn a_key_that_is_not_proved_opens_nothing() {
    let (agent, thief) = (Identity::new(), Identity::new());
    let server = server(routes(&agent.fingerprint(), ""), SessionApiSettings::default()).await;
    // The certificate of one with the key of another.
    let forged = Identity { key: thief.key, certificate: agent.certificate.clone() };
    let Ok(mut stream) = server.tls(Some(&forged), "http/1.1").await else { return };
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    assert!(stream.read_to_end(&mut answer).await.is_err(), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn blocked_and_disabled_instances_are_told_why() {
    let agent = Identity::new();
    let blocked = server(routes(&agent.fingerprint(), ""), SessionApiSettings::default()).await;
    let (response, problem) = blocked.post(Some(&agent), "/v1/session", wish("2020.12.1")).await;
    assert_eq!(response.status(), 409);
    let expected = json!([{"name": "core-2021-1-4", "reason": "Traversal", "moreInfo": "https://x.example"}]);
    assert_eq!(problem["blocks"], expected);
    let reports = blocked.reports.0.lock().unwrap().clone();
    assert_eq!(reports[0].version.as_deref(), Some("2020.12.1"), "told also when refused");
    assert_eq!(reports[0].session, None);

    let off = server(routes(&agent.fingerprint(), "  enabled: false\n"), SessionApiSettings::default()).await;
    let (response, _) = off.post(Some(&agent), "/v1/session", wish("2026.11.1")).await;
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_the_right_status() {
    let agent = Identity::new();
    let settings =
        SessionApiSettings { body_time: Duration::from_millis(50), ..SessionApiSettings::default() };
    let server = server(routes(&agent.fingerprint(), ""), settings).await;
    let some = Some(&agent);
    let (response, page) = server.ask(some, "h2", Method::GET, "/", "").await;
    assert_eq!(response.status(), 200);
    assert!(page["serverTime"].is_u64() && page["endpoints"].is_array(), "{page}");
    let (response, _) = server.ask(some, "h2", Method::GET, "/v1/nothing", "").await;
    assert_eq!(response.status(), 404);
    let (response, _) = server.ask(some, "http/1.1", Method::GET, "/v1/session", "").await;
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"POST".parse().unwrap()));
    let (response, _) = server.ask(some, "http/1.1", Method::DELETE, "/", "").await;
    assert_eq!(response.status(), 405);
    let (response, problem) = server.post(some, "/v1/session", json!({"agentVersion": 1})).await;
    assert_eq!((response.status().as_u16(), &problem["pointer"]), (400, &json!("/agentVersion")));
    let (response, _) = server.ask(some, "h2", Method::POST, "/v1/session", vec![b' '; 17_000]).await;
    assert_eq!(response.status(), 413);

    let mut stream = server.tls(some, "http/1.1").await.unwrap();
    stream
        .write_all(b"POST /v1/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\n{")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let agent = Identity::new();
    let once = Allowance { per_minute: 6, burst: 1 };
    let settings = SessionApiSettings { requests_per_key: once, ..SessionApiSettings::default() };
    let by_key = server(routes(&agent.fingerprint(), ""), settings).await;
    assert_eq!(by_key.post(Some(&agent), "/v1/session", wish("2026.1.0")).await.0.status(), 200);
    let (response, _) = by_key.post(Some(&agent), "/v1/session", wish("2026.1.0")).await;
    assert_eq!(response.status(), 429);
    let after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&after), "{after}");
    assert_eq!(by_key.post(None, "/v1/session", wish("1")).await.0.status(), 401, "others are not held up");

    let settings = SessionApiSettings { requests_per_client: once, ..SessionApiSettings::default() };
    let by_address = server(routes(&agent.fingerprint(), ""), settings).await;
    assert_eq!(by_address.post(None, "/v1/session", wish("1")).await.0.status(), 401);
    assert_eq!(by_address.post(Some(&agent), "/v1/session", wish("1")).await.0.status(), 429);
}

#[tokio::test]
async fn floods_are_turned_away_before_tls() {
    let agent = Identity::new();
    let once = Allowance { per_minute: 1, burst: 1 };
    let settings = SessionApiSettings { handshakes_per_client: once, ..SessionApiSettings::default() };
    let flooded = server(routes(&agent.fingerprint(), ""), settings).await;
    let _first = flooded.tls(Some(&agent), "h2").await.unwrap();
    let error = flooded.tls(Some(&agent), "h2").await.unwrap_err().to_string();
    assert!(error.contains("InternalError"), "{error}");
    assert_eq!(flooded.metrics.visitors_refused.count(RefusalReason::ApiRate), 1);

    let settings = SessionApiSettings { max_connections: 1, ..SessionApiSettings::default() };
    let full = server(routes(&agent.fingerprint(), ""), settings).await;
    let _first = full.tls(Some(&agent), "h2").await.unwrap();
    assert!(full.tls(Some(&agent), "h2").await.is_err());
    assert_eq!(full.metrics.visitors_refused.count(RefusalReason::ApiConnections), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let agent = Identity::new();
    let settings =
        SessionApiSettings { idle_time: Duration::from_millis(50), ..SessionApiSettings::default() };
    let server = server(routes(&agent.fingerprint(), ""), settings).await;
    let mut stream = server.tls(Some(&agent), "http/1.1").await.unwrap();
    // One that dribbles counts as idle, too.
    stream.write_all(b"GET / HT").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "it stays open");
}

#[tokio::test]
async fn a_rewound_stream_gives_back_what_was_read() {
    let (mut near, far) = tokio::io::duplex(16);
    near.write_all(b"!").await.unwrap();
    let mut rewound = Rewound::new(b"ok".to_vec(), far);
    let mut all = [0; 3];
    rewound.read_exact(&mut all).await.unwrap();
    assert_eq!(&all, b"ok!");
}
