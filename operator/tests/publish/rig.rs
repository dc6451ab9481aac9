//! An operator's end: publisher and server, on loopback.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use latchkey_operator::publish::{
    Counters, Enrolments, Limits, Publisher, Refusal, RefusalKind, ServerTls, serve,
};
use operator_link::CONTRACT;
use planner::Ordered;
use route_table::{Fingerprint, InstanceId, Route};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::proxy::Proxy;

/// Longer than anything here takes, on the busiest machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What has to happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it takes too long")
}

pub(crate) type Routes = Ordered<InstanceId, Route>;

/// An operator without Kubernetes.
pub(crate) struct Rig {
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    pub(crate) publisher: Arc<Publisher>,
    /// One permit lets one enrolment end.
    pub(crate) door: Arc<Door>,
    serving: AbortHandle,
}

impl Rig {
    pub(crate) async fn start(limits: Limits) -> Self {
        let authority = Authority::new();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let publisher = Publisher::new(limits);
        let door = Arc::new(Door(Semaphore::new(0)));
        let (tls, enrolments) = (Arc::new(Tls(authority.server())), Arc::clone(&door));
        let serving = tokio::spawn(serve(listener, tls, Arc::clone(&publisher), enrolments)).abort_handle();
        Self { authority, address, publisher, door, serving }
    }

    /// A proxy with a certificate of its own name, attached.
    pub(crate) async fn attach(&self, name: &str, incarnation: u64) -> Proxy {
        self.attach_with(name, incarnation, CONTRACT).await
    }

    /// A proxy that speaks this contract.
    pub(crate) async fn attach_with(&self, name: &str, incarnation: u64, contract: u32) -> Proxy {
        let identity = self.authority.identity(&[name]);
        let tls = self.authority.client(Some(identity), &rustls::version::TLS13);
        let mut proxy = soon(Proxy::connect(self.address, tls)).await.unwrap();
        proxy.contract = contract;
        soon(proxy.hello(name, incarnation)).await.unwrap();
        proxy
    }

    pub(crate) fn publish(&self, revision: u64, routes: &Routes) {
        self.publisher.publish("ui.example.com".parse().unwrap(), revision, routes.clone());
    }

    /// Waits until the publisher is in such a state.
    pub(crate) async fn until(&self, holds: impl Fn(&Publisher) -> bool) {
        let mut changes = self.publisher.subscribe();
        soon(async {
            while !holds(&self.publisher) {
                changes.changed().await.unwrap();
            }
        })
        .await;
    }

    /// Waits until so much was counted. Connections change nothing that is told, so this has to look again and again.
    pub(crate) async fn until_counted(&self, holds: impl Fn(Counters) -> bool) {
        soon(async {
            while !holds(self.publisher.counters()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    pub(crate) fn expect(&self, pods: &[(&str, bool)]) {
        let pods: BTreeMap<String, bool> =
            pods.iter().map(|(pod, ready)| ((*pod).to_owned(), *ready)).collect();
        self.publisher.expect_pods(pods);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Tls(Arc<ServerConfig>);

impl ServerTls for Tls {
    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0)
    }
}

/// Lets in who brings the token `let-me-in`, one by one.
pub(crate) struct Door(pub(crate) Semaphore);

impl Enrolments for Door {
    fn enrol(
        &self,
        token: Zeroizing<String>,
        key: Fingerprint,
    ) -> BoxFuture<'_, Result<InstanceId, Refusal>> {
        Box::pin(async move {
            self.0.acquire().await.unwrap().forget();
            if *token == "let-me-in" && key == Fingerprint::from_bytes([7; 32]) {
                return Ok("homes/house".parse().unwrap());
            }
            Err(Refusal { kind: RefusalKind::Token, detail: "Nobody knows this token.".to_owned() })
        })
    }
}

pub(crate) fn route(at: u32, look: u64) -> Route {
    Route::new(format!("homes/house-{at}").parse().unwrap()).with(|terms| {
        terms.hostnames = vec![format!("house-{at}.ui.example.com").parse().unwrap()];
        terms.generation = look;
    })
}

pub(crate) fn routes(count: u32) -> Routes {
    (0..count).map(|at| route(at, 1)).map(|route| (route.id.clone(), route)).collect()
}
