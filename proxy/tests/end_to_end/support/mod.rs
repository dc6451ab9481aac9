//! What the tests share: processes, visitors, agents, and waiting with an end.

mod agent;
mod operator;
mod process;
mod real_agent;
mod visitor;

use std::{future::Future, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

pub use agent::{Agent, sealed, token, with_claims};
pub use operator::{Attached, Authority, Operator, REPLICA};
pub use process::Proxy;
pub use real_agent::{RealAgent, State};
pub use visitor::{Visitor, hello};

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);
/// How often something is looked at that nobody tells of.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `check` holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let end = Instant::now() + LONG;
    while !check().await {
        assert!(Instant::now() < end, "in vain: {what}");
        sleep(LOOK_EVERY).await;
    }
}

/// Waits for something that comes by itself.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// A GET over plain HTTP: status and body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = soon(path, exchange).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// An instance that speaks TLS itself, or so its agent thinks.
pub async fn echoing_instance() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(agent::greet(stream, "instance".to_owned()));
        }
    });
    address
}

/// A routes file.
pub fn table(revision: u32, routes: &[String]) -> String {
    format!("revision: {revision}\ndomain: ui.example.com\nroutes: [{}]\n", routes.join(", "))
}

/// One of its routes; `more` are further members, each with a comma before it.
pub fn route(id: &str, host: &str, more: &str) -> String {
    format!("{{id: {id}, hostnames: [{host}]{more}}}")
}
