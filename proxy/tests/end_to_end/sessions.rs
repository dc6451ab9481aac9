//! The agent's own binary: it asks the session API, opens its tunnel and serves a page.

use std::{fs, sync::Arc};

use rustix::process::Signal;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::support::{Proxy, RealAgent, State, Visitor, echoing_instance, route, soon, table, until};

const ID: &str = "homes/lake";
const HOST: &str = "lake.ui.example.com";
const BLOCK: &str = ", blocks: [{name: old, versions: [\"<=2021.1.4\"], reason: Traversal}]";

fn one(revision: u32, keys: &[String], more: &str) -> String {
    table(revision, &[route(ID, HOST, &format!(", agentKeys: [{}]{more}", keys.join(", ")))])
}

/// A plain web server that answers with the request's head.
async fn instance() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let length = head.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(&[answer.as_bytes(), &head].concat()).await;
            });
        }
    });
    address
}

/// Fetches a page by HTTPS, trusting the certificate that the agent made and nothing else.
async fn fetch(proxy: &Proxy, state: &State, headers: &str) -> std::io::Result<String> {
    let pem = fs::read(state.path("state/self-signed.pem"))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(proxy.address).await?;
    let mut tls = TlsConnector::from(Arc::new(config)).connect(HOST.try_into().unwrap(), tcp).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n{headers}\r\n");
    tls.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn an_agent_joins_and_its_page_is_seen() {
    let state = State::new();
    let proxy = Proxy::with_routes(&one(1, &[state.key()], ""), &[]).await;
    let _agent = RealAgent::join(
        &proxy,
        &state,
        &["--mode", "terminate", "--target", &instance().await, "--product-version", "2026.11.1"],
    );
    proxy.held_by(ID, &[1]).await;
    let row = proxy.tunnels().await.remove(0);
    assert_eq!((&row["version"], &row["cipher"]), (&"2026.11.1".into(), &"aes-gcm-siv".into()));
    let forged = "x-forwarded-for: 203.0.113.66\r\nforwarded: for=203.0.113.66\r\n";
    let page = soon("a page", fetch(&proxy, &state, forged)).await.unwrap().to_lowercase();
    assert!(page.starts_with("http/1.1 200 "), "{page}");
    assert!(page.contains("x-forwarded-for: 127.0.0.1\r\n"), "{page}");
    assert!(page.contains("x-forwarded-proto: https\r\n"), "{page}");
    assert!(page.contains(&format!("x-forwarded-host: {HOST}\r\n")), "{page}");
    assert!(!page.contains("203.0.113.66"), "a visitor's word is believed: {page}");
}

#[tokio::test]
async fn a_block_cuts_the_agent_until_its_version_changes() {
    let state = State::new();
    let keys = [state.key()];
    let proxy = Proxy::with_routes(&one(1, &keys, ""), &[]).await;
    let version = state.path("version");
    fs::write(&version, "2020.12.1").unwrap();
    let file = version.to_str().unwrap();
    let args =
        ["--product-version-file", file, "--product-version-interval", "0.1", "--target", "127.0.0.1:9"];
    let mut agent = RealAgent::join(&proxy, &state, &args);
    proxy.held_by(ID, &[1]).await;

    proxy.set_routes(&one(2, &keys, BLOCK));
    proxy.shows("latchkey_proxy_tunnel_ends_total{reason=\"blocked\"}", 1.0).await;
    proxy.shows("latchkey_proxy_session_api_answers_total{code=\"409\"}", 1.0).await;
    until("the log says why", || async { agent.process.log().contains("Traversal") }).await;
    assert!(agent.process.is_running() && proxy.tunnels().await.is_empty());
    assert_eq!(Visitor::ask(proxy.address, HOST).await.refused().await, 112);

    fs::write(&version, "2026.11.1").unwrap();
    proxy.held_by(ID, &[2]).await;
    assert_eq!(proxy.tunnels().await[0]["version"], "2026.11.1");
    proxy.shows("latchkey_proxy_session_api_answers_total{code=\"409\"}", 1.0).await;
}

#[tokio::test]
async fn a_version_that_changes_is_told_at_once_and_no_visitor_is_cut() {
    let state = State::new();
    let proxy = Proxy::with_routes(&one(1, &[state.key()], ""), &[]).await;
    let version = state.path("version");
    fs::write(&version, "2026.11.1").unwrap();
    let (file, echo) = (version.to_str().unwrap(), echoing_instance().await);
    let args = ["--product-version-file", file, "--product-version-interval", "0.1"];
    let more = ["--mode", "passthrough", "--target", &echo];
    let _agent = RealAgent::join(&proxy, &state, &[&args[..], &more].concat());
    proxy.held_by(ID, &[1]).await;
    let mut visitor = Visitor::ask(proxy.address, HOST).await;
    assert_eq!(visitor.greeting().await, "instance");
    fs::write(&version, "2026.11.2").unwrap();
    proxy.held_by(ID, &[1, 2]).await;
    assert_eq!(proxy.tunnels().await[1]["version"], "2026.11.2");
    visitor.echo(&vec![9; 100_000]).await.unwrap();
    let mut later = Visitor::ask(proxy.address, HOST).await;
    assert_eq!(later.greeting().await, "instance");
    drop(visitor);
    proxy.held_by(ID, &[2]).await;
    later.echo(&vec![9; 100_000]).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_removed_ends_the_agents_tunnel_and_its_sessions() {
    let (state, other) = (State::new(), State::new());
    let proxy = Proxy::with_routes(&one(1, &[state.key()], ""), &["--park-window", "0"]).await;
    let agent = RealAgent::join(&proxy, &state, &["--target", "127.0.0.1:9"]);
    proxy.held_by(ID, &[1]).await;
    proxy.set_routes(&one(2, &[other.key()], ""));
    proxy.shows("latchkey_proxy_tunnel_ends_total{reason=\"old_key\"}", 1.0).await;
    proxy.shows("latchkey_proxy_session_api_answers_total{code=\"401\"}", 1.0).await;
    until("the log says what to do", || async { agent.process.log().contains(&state.key()) }).await;
    assert_eq!(Visitor::ask(proxy.address, HOST).await.refused().await, 80);
}

#[tokio::test]
async fn a_second_agent_is_told_of_the_first_and_takes_over_when_that_is_dead() {
    let (state, other) = (State::new(), State::new());
    let routes = one(1, &[state.key(), other.key()], "");
    let proxy = Proxy::with_routes(&routes, &["--conflict-time", "2"]).await;
    let first = RealAgent::join(&proxy, &state, &["--target", "127.0.0.1:9"]);
    proxy.held_by(ID, &[1]).await;
    let second = RealAgent::join(&proxy, &other, &["--target", "127.0.0.1:9"]);
    proxy.shows("latchkey_proxy_tunnel_opens_total{result=\"conflict\"}", 1.0).await;
    until("it is told", || async { second.process.log().contains("another agent serves") }).await;
    proxy.held_by(ID, &[1]).await;
    drop(second);

    first.process.signal(Signal::STOP);
    let _second = RealAgent::join(&proxy, &other, &["--target", "127.0.0.1:9"]);
    proxy.held_by(ID, &[2]).await;
    proxy.shows("latchkey_proxy_tunnel_opens_total{result=\"replaced\"}", 1.0).await;
    // Back to life, it does not take it back.
    first.process.signal(Signal::CONT);
    until("the first is told", || async { first.process.log().contains("the tunnel has ended") }).await;
    proxy.held_by(ID, &[2]).await;
}
