//! Terminate mode with real TLS and a real instance, driven at the end of the pipe where the tunnel would be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use latchkey_agent::certificates::{Certificates, SelfSigned};
use latchkey_agent::http::HttpFront;
use latchkey_agent::settings::Limits;
use latchkey_agent::state_folder::StateFolder;
use latchkey_agent::target::Target;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HOST: &str = "home.example.com";
const VISITOR: &str = "203.0.113.9";

fn limits() -> Limits {
    Limits {
        max_connections: 100,
        max_requests: 100,
        max_header_bytes: 16 * 1024,
        header_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(30),
    }
}

struct Agent {
    front: Arc<HttpFront>,
    root: CertificateDer<'static>,
    _state: tempfile::TempDir,
}

impl Agent {
    async fn before(target: SocketAddr, forwarded: bool, limits: Limits) -> Self {
        let state = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(state.path()).unwrap();
        let certificates =
            Certificates::new(Box::new(SelfSigned::new(folder.clone())), vec![HOST.into()]).unwrap();
        let pem = folder.read("self-signed.pem").unwrap().unwrap();
        let target = Target::resolve(target.to_string().parse().unwrap()).await;
        let front = HttpFront::new(certificates, target, forwarded, limits);
        Self { front, root: CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), _state: state }
    }

    /// A visitor's pipe, before any TLS.
    fn pipe(&self) -> DuplexStream {
        let (ours, servers) = duplex(64 * 1024);
        self.front.serve(servers, Some(VISITOR.parse::<IpAddr>().unwrap()), &Handle::current());
        ours
    }

    async fn tls(&self, alpn: &[&[u8]]) -> std::io::Result<TlsStream<DuplexStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), self.pipe()).await
    }

    async fn http1(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let stream = TokioIo::new(self.tls(&[b"http/1.1"]).await.unwrap());
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let stream = TokioIo::new(self.tls(&[b"h2"]).await.unwrap());
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// Holds requests for `/slow` back until it is told, and tells when one has come.
#[derive(Clone)]
struct Gate {
    come: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Gate {
    async fn wait_for(&self, requests: u32) {
        self.come.acquire_many(requests).await.unwrap().forget();
    }

    fn open(&self, requests: usize) {
        self.go.add_permits(requests);
    }
}

async fn instance() -> SocketAddr {
    gated_instance().await.0
}

/// An instance: tells on `/echo` what it was sent, on `/slow` when the gate opens; upgrades on `/socket`.
async fn gated_instance() -> (SocketAddr, Gate) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Gate { come: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) };
    let theirs = gate.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let gate = theirs.clone();
            let service = service_fn(move |request| answer(request, gate.clone()));
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    (address, gate)
}

async fn answer(mut request: Request<Incoming>, gate: Gate) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/socket" {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut word = [0; 4];
            while stream.read_exact(&mut word).await.is_ok() {
                stream.write_all(&word).await.unwrap();
            }
        });
        let switched =
            Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
        return Ok(switched.body(Full::default()).unwrap());
    }
    if request.uri().path() == "/slow" {
        gate.come.add_permits(1);
        gate.go.acquire().await.unwrap().forget();
    }
    let mut response = Response::builder().header("x-path", request.uri().to_string());
    for (name, value) in request.headers() {
        response
            .headers_mut()
            .unwrap()
            .append(http::HeaderName::try_from(format!("seen-{name}")).unwrap(), value.clone());
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Ok(response.header("keep-alive", "timeout=5").body(Full::new(body)).unwrap())
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", HOST).body(Full::default()).unwrap()
}

fn claims(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.example.com"),
        ("forwarded", "for=127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
    ] {
        request.headers_mut().append(name, http::HeaderValue::from_static(value));
    }
    request
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

fn assert_told_once(headers: &HeaderMap) {
    assert_eq!(all(headers, "seen-x-forwarded-for"), [VISITOR]);
    assert_eq!(all(headers, "seen-x-forwarded-proto"), ["https"]);
    assert_eq!(all(headers, "seen-x-forwarded-host"), [HOST]);
    assert_eq!(all(headers, "seen-host"), [HOST]);
    for name in ["seen-forwarded", "seen-x-real-ip"] {
        assert!(all(headers, name).is_empty(), "{name} is still there");
    }
}

#[tokio::test]
async fn the_visitors_address_is_told_and_never_believed_from_the_visitor() {
    let agent = Agent::before(instance().await, true, limits()).await;
    let response = agent.http1().await.send_request(claims(get("/echo?a=b"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-path"], "/echo?a=b");
    assert!(response.headers().get("keep-alive").is_none(), "that was about another connection");
    assert_told_once(response.headers());

    let request = Request::get(format!("https://{HOST}/echo")).body(Full::default()).unwrap();
    let response = agent.http2().await.send_request(claims(request)).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_told_once(response.headers());
}

#[tokio::test]
async fn without_forwarded_headers_claims_are_dropped_all_the_same() {
    let agent = Agent::before(instance().await, false, limits()).await;
    let response = agent.http1().await.send_request(claims(get("/echo"))).await.unwrap();
    for name in ["seen-x-forwarded-for", "seen-x-forwarded-host", "seen-x-forwarded-proto", "seen-x-real-ip"]
    {
        assert!(all(response.headers(), name).is_empty(), "{name} is there");
    }
}

#[tokio::test]
async fn foreign_authorities_get_421() {
    let agent = Agent::before(instance().await, true, limits()).await;
    let request = Request::get("/").header("host", "evil.example.com").body(Full::default()).unwrap();
    let response = agent.http1().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    let request = Request::get("https://127.0.0.1:8123/").body(Full::default()).unwrap();
    let response = agent.http2().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    let request = Request::get("/").header("host", HOST).header("host", HOST).body(Full::default()).unwrap();
    let response = agent.http1().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let agent = Agent::before(instance().await, true, limits()).await;
    let body: Bytes = (0..4 << 20).map(|at: u32| (at % 251) as u8).collect::<Vec<_>>().into();
    let post = |uri: String| {
        Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("host", HOST)
            .body(Full::new(body.clone()))
            .unwrap()
    };
    let response = agent.http1().await.send_request(post("/echo".into())).await.unwrap();
    assert!(response.into_body().collect().await.unwrap().to_bytes() == body);
    let response = agent.http2().await.send_request(post(format!("https://{HOST}/echo"))).await.unwrap();
    assert!(response.into_body().collect().await.unwrap().to_bytes() == body);
}

async fn websocket(agent: &Agent) -> TokioIo<hyper::upgrade::Upgraded> {
    let request = Request::get("/socket").header("host", HOST).header("connection", "keep-alive, Upgrade");
    let request = request
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "x")
        .body(Full::default())
        .unwrap();
    let response = agent.http1().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "websocket");
    TokioIo::new(hyper::upgrade::on(response).await.unwrap())
}

#[tokio::test]
async fn a_websocket_passes() {
    let agent = Agent::before(instance().await, true, limits()).await;
    let mut stream = websocket(&agent).await;
    for word in [b"ping", b"pong"] {
        stream.write_all(word).await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, word);
    }
}

#[tokio::test]
async fn an_absent_instance_is_a_502_that_says_what_to_do() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let agent = Agent::before(closed, true, limits()).await;
    let response = agent.http1().await.send_request(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("--target"));
}

#[tokio::test]
async fn a_silent_instance_is_a_504() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { response_timeout: Duration::from_millis(200), ..limits() };
    let agent = Agent::before(silent.local_addr().unwrap(), true, limits).await;
    let response = agent.http1().await.send_request(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_connection_that_the_instance_closed_meanwhile_costs_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        // Each connection answers once, takes the next request, and hangs up instead of answering.
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                let _ = stream.read(&mut request).await;
            });
        }
    });
    let agent = Agent::before(address, true, limits()).await;
    let mut sender = agent.http1().await;
    for _ in 0..3 {
        let response = sender.send_request(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
    }
}

#[tokio::test]
async fn too_many_requests_at_once_get_503() {
    let (address, gate) = gated_instance().await;
    let agent = Agent::before(address, true, Limits { max_requests: 1, ..limits() }).await;
    let (mut one, mut two) = (agent.http1().await, agent.http1().await);
    let slow = tokio::spawn(one.send_request(get("/slow")));
    gate.wait_for(1).await;
    let refused = two.send_request(get("/echo")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    gate.open(1);
    let response = slow.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap();
    refused.into_body().collect().await.unwrap();
    assert_eq!(two.send_request(get("/echo")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_visitor_that_says_nothing_is_let_go() {
    let limits = Limits { header_timeout: Duration::from_millis(200), ..limits() };
    let agent = Agent::before(instance().await, true, limits).await;
    let mut byte = [0];
    let silent = async {
        let mut before_tls = agent.pipe();
        assert_eq!(before_tls.read(&mut byte).await.unwrap(), 0);
        let mut after_tls = agent.tls(&[b"http/1.1"]).await.unwrap();
        after_tls.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        let _ = after_tls.read(&mut byte).await;
    };
    tokio::time::timeout(Duration::from_secs(5), silent).await.expect("the connection is closed");
}

#[tokio::test]
async fn a_header_section_has_a_limit() {
    let agent = Agent::before(instance().await, true, limits()).await;
    let mut request = get("/echo");
    request.headers_mut().insert("cookie", "x".repeat(20 * 1024).try_into().unwrap());
    let response = agent.http1().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn only_the_protocols_we_speak_are_negotiated() {
    let agent = Agent::before(instance().await, true, limits()).await;
    assert!(agent.tls(&[b"acme-tls/1"]).await.is_err(), "there is no challenge to answer");
    let both = agent.tls(&[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(both.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn stopping_loses_no_request() {
    let (address, gate) = gated_instance().await;
    let agent = Agent::before(address, true, limits()).await;
    let (mut busy, mut busy2) = (agent.http1().await, agent.http2().await);
    let mut idle = agent.http1().await;
    idle.send_request(get("/echo")).await.unwrap().into_body().collect().await.unwrap();
    let under_way = tokio::spawn(busy.send_request(get("/slow")));
    let slow2 = Request::get(format!("https://{HOST}/slow")).body(Full::default()).unwrap();
    let under_way2 = tokio::spawn(busy2.send_request(slow2));
    let mut socket = websocket(&agent).await;
    // Connected, and its request not sent yet.
    let mut late = agent.http1().await;
    gate.wait_for(2).await;
    idle.ready().await.unwrap();

    agent.front.begin_stop();
    let front = agent.front.clone();
    let mut finished = tokio::spawn(async move { front.finish(Duration::from_secs(30)).await });
    while idle.ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
    // Its request takes a while to arrive.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let late = late.send_request(get("/echo")).await.unwrap();
    assert_eq!(late.status(), StatusCode::OK);
    late.into_body().collect().await.unwrap();
    socket.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    socket.read_exact(&mut back).await.unwrap();
    assert!(!finished.is_finished(), "requests are under way");

    gate.open(2);
    for response in [under_way.await.unwrap().unwrap(), under_way2.await.unwrap().unwrap()] {
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
    }
    let finished = tokio::time::timeout(Duration::from_secs(10), &mut finished).await;
    finished.expect("a websocket does not hold us up").unwrap();
    assert_eq!(socket.read(&mut back).await.unwrap_or(0), 0, "it is closed at last");
}
