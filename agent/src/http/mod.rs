//! Terminate mode: TLS ends here, and each request goes on to the instance as plain HTTP.
//!
//! pipe -> TLS handshake -> HTTP/1.1 or h2 -> `authority` (421) -> headers -> `target_client` -> the instance

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certificates::Certificates;
use crate::settings::Limits;
use crate::target::Target;

pub mod authority;
pub mod body;
pub mod forward;
pub mod home_assistant;
pub mod hop_by_hop;
pub mod pages;
pub mod target_client;

use forward::{Visitor, forward};
use home_assistant::TrustHint;
use target_client::TargetClient;

/// A kept connection without a request is closed after this long.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// When told to stop: a connection whose first request is still on its way gets this long to bring it.
const FIRST_REQUEST_WHEN_STOPPING: Duration = Duration::from_secs(2);
const H2_STREAMS: u32 = 128;
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 4 << 20;
const H2_PING: Duration = Duration::from_secs(30);

/// The HTTP server for the visitors of all tunnels.
#[derive(Debug)]
pub struct HttpFront {
    certificates: Arc<Certificates>,
    target: Arc<Target>,
    client: TargetClient,
    forwarded_headers: bool,
    limits: Limits,
    requests: Arc<Semaphore>,
    trust_hint: TrustHint,
    stop: CancellationToken,
    connections: TaskTracker,
    end_upgrades: CancellationToken,
    upgrades: TaskTracker,
}

impl HttpFront {
    /// In front of `target`.
    pub fn new(
        certificates: Arc<Certificates>,
        target: Arc<Target>,
        forwarded_headers: bool,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            client: target_client::client(target.clone(), limits.connect_timeout),
            requests: Arc::new(Semaphore::new(limits.max_requests)),
            certificates,
            target,
            forwarded_headers,
            limits,
            trust_hint: TrustHint::default(),
            stop: CancellationToken::new(),
            connections: TaskTracker::new(),
            end_upgrades: CancellationToken::new(),
            upgrades: TaskTracker::new(),
        })
    }

    /// Serves one visitor's connection, in a task on the runtime given.
    pub fn serve<S>(self: &Arc<Self>, stream: S, address: Option<IpAddr>, on: &tokio::runtime::Handle)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let front = self.clone();
        self.connections.spawn_on(
            async move {
                if let Err(error) = front.connection(stream, address).await {
                    tracing::debug!(%error, "a visitor's connection ended early");
                }
            },
            on,
        );
    }

    /// Visitors' connections and upgrades open at the moment.
    pub fn open(&self) -> usize {
        self.connections.len() + self.upgrades.len()
    }

    /// Tells connections to close after the request under way. New ones are still served, one request each.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until requests have their answers; a websocket knows no end, so those are closed when nothing else is
    /// left. Nothing lasts longer than `grace`.
    pub async fn finish(&self, grace: Duration) {
        self.stop.cancel();
        self.connections.close();
        self.upgrades.close();
        let _ = tokio::time::timeout(grace, self.connections.wait()).await;
        self.end_upgrades.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.upgrades.wait()).await;
    }

    async fn connection<S>(self: Arc<Self>, stream: S, address: Option<IpAddr>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(tls) = self.certificates.tls() else { return Ok(()) };
        let accepted =
            tokio::time::timeout(self.limits.header_timeout, TlsAcceptor::from(tls).accept(stream));
        let stream = accepted.await.map_err(|_| io::ErrorKind::TimedOut)??;
        let sni = stream.get_ref().1.server_name().map(Arc::from);
        self.http(stream, Visitor { address, sni }).await.map_err(io::Error::other)
    }

    async fn http<S>(
        self: Arc<Self>,
        stream: S,
        visitor: Visitor,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let first = Arc::new(FirstRequest::default());
        let (front, seen) = (self.clone(), first.clone());
        let service = service_fn(move |request| {
            seen.has_come();
            let (front, visitor) = (front.clone(), visitor.clone());
            async move { Ok::<_, std::convert::Infallible>(forward(&front, &visitor, request).await) }
        });
        let server = self.server();
        let mut serving =
            std::pin::pin!(server.serve_connection_with_upgrades(TokioIo::new(stream), service));
        tokio::select! {
            outcome = serving.as_mut() => return outcome,
            () = self.stop.cancelled() => {}
            () = first.missing_after(self.limits.header_timeout) => return Err("no request came".into()),
        }
        // To close now would lose a request that is on its way already.
        tokio::select! {
            outcome = serving.as_mut() => return outcome,
            () = first.wait() => {}
            () = tokio::time::sleep(FIRST_REQUEST_WHEN_STOPPING) => {}
        }
        serving.as_mut().graceful_shutdown();
        serving.await
    }

    fn server(&self) -> auto::Builder<TokioExecutor> {
        let header_bytes = self.limits.max_header_bytes;
        let mut server = auto::Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            // Also runs while a kept connection is idle, so it cannot be as short as for the first request.
            .header_read_timeout(KEEP_ALIVE.max(self.limits.header_timeout))
            .max_buf_size(usize::try_from(header_bytes).unwrap_or(usize::MAX));
        server
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(header_bytes)
            .max_concurrent_streams(H2_STREAMS)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .keep_alive_interval(H2_PING);
        server
    }
}

/// Has a connection brought its first request?
#[derive(Debug, Default)]
struct FirstRequest {
    come: AtomicBool,
    told: Notify,
}

impl FirstRequest {
    fn has_come(&self) {
        if !self.come.swap(true, Ordering::AcqRel) {
            self.told.notify_waiters();
        }
    }

    async fn wait(&self) {
        loop {
            let told = self.told.notified();
            if self.come.load(Ordering::Acquire) {
                return;
            }
            told.await;
        }
    }

    /// Returns if none has come in that time, and never otherwise.
    async fn missing_after(&self, time: Duration) {
        if tokio::time::timeout(time, self.wait()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}
