//! How the session API is carried: TLS, HTTP/1.1 and HTTP/2, and the limits of connections. What it says: `endpoints`.

use std::{
    convert::Infallible,
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use route_table::{Fingerprint, RouteTable};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Allowance, ApiIdentity, ApiTlsError, Enrolment, Limiter, MAX_BODY_BYTES, Reports, TokenTerms, client_key,
    comeback::Comeback, limiter::client_network,
};
use crate::{
    fernet_keys::FernetKeyRing,
    metrics::{Held, Metrics, RefusalReason},
};

/// A fatal alert, `internal_error`, before any handshake.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];

/// What the session API allows.
#[derive(Clone, Debug)]
pub struct SessionApiSettings {
    /// How long tokens last, and where they lead.
    pub terms: TokenTerms,
    /// Connections at once; more are closed before TLS.
    pub max_connections: usize,
    /// How long the TLS handshake may take.
    pub handshake_time: Duration,
    /// How long a body may take.
    pub body_time: Duration,
    /// How long a connection may be without a request.
    pub idle_time: Duration,
    /// How long a connection may live.
    pub connection_time: Duration,
    /// TLS handshakes of one client network (IPv4 address, IPv6 /64); more are closed before TLS.
    pub handshakes_per_client: Allowance,
    /// Requests of one client network; more are answered 429.
    pub requests_per_client: Allowance,
    /// Requests with one key; more are answered 429.
    pub requests_per_key: Allowance,
    /// Client networks and keys remembered for the limits.
    pub remembered: usize,
}

impl Default for SessionApiSettings {
    fn default() -> Self {
        Self {
            terms: TokenTerms::default(),
            max_connections: 1024,
            handshake_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            idle_time: Duration::from_mins(1),
            connection_time: Duration::from_mins(15),
            // Many agents may share one address behind NAT, and all come back together.
            handshakes_per_client: Allowance { per_minute: 600, burst: 600 },
            requests_per_client: Allowance { per_minute: 300, burst: 300 },
            requests_per_key: Allowance { per_minute: 30, burst: 20 },
            remembered: 65_536,
        }
    }
}

/// Gives the table in force.
pub type TableSource = Arc<dyn Fn() -> Arc<RouteTable> + Send + Sync>;

/// The session API. Cloning shares it.
#[derive(Clone)]
pub struct SessionApi(Arc<Inner>);

/// What every connection shares.
pub(super) struct Inner {
    pub(super) settings: SessionApiSettings,
    acceptor: TlsAcceptor,
    pub(super) identity: Arc<ApiIdentity>,
    pub(super) table: TableSource,
    pub(super) keys: Arc<FernetKeyRing>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reports: Arc<dyn Reports>,
    pub(super) enrolment: Arc<dyn Enrolment>,
    room: Arc<Semaphore>,
    handshakes: Limiter<IpAddr>,
    pub(super) requests: Limiter<IpAddr>,
    pub(super) by_key: Limiter<[u8; 32]>,
    pub(super) comeback: Comeback,
}

impl fmt::Debug for SessionApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionApi").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl SessionApi {
    /// Puts the parts together.
    pub fn new(
        settings: SessionApiSettings,
        identity: Arc<ApiIdentity>,
        table: TableSource,
        keys: Arc<FernetKeyRing>,
        metrics: Arc<Metrics>,
        reports: Arc<dyn Reports>,
        enrolment: Arc<dyn Enrolment>,
    ) -> Result<Self, ApiTlsError> {
        let acceptor = TlsAcceptor::from(Arc::new(identity.server_config()?));
        Ok(Self(Arc::new(Inner {
            acceptor,
            identity,
            table,
            keys,
            metrics,
            reports,
            enrolment,
            room: Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))),
            handshakes: Limiter::new(settings.handshakes_per_client, settings.remembered),
            requests: Limiter::new(settings.requests_per_client, settings.remembered),
            by_key: Limiter::new(settings.requests_per_key, settings.remembered),
            comeback: Comeback::default(),
            settings,
        })))
    }

    /// Serves one connection to its end. `stream` begins with the ClientHello: see [`super::Rewound`].
    pub async fn serve(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: IpAddr,
    ) {
        let inner = &self.0;
        let refused = if inner.handshakes.check(client_network(peer), Instant::now()).is_err() {
            Some(RefusalReason::ApiRate)
        } else {
            None
        };
        let permit = match (refused, Arc::clone(&inner.room).try_acquire_owned()) {
            (None, Ok(permit)) => permit,
            (reason, _) => {
                let reason = reason.unwrap_or(RefusalReason::ApiConnections);
                inner.metrics.visitors_refused.inc(reason);
                tracing::debug!(target: "latchkey::session", %peer, reason = %reason, "connection refused");
                let _ = timeout(Duration::from_secs(1), async {
                    let _ = stream.write_all(&ALERT).await;
                    stream.shutdown().await
                })
                .await;
                return;
            }
        };
        let _permit = permit;
        let _held = Held::new(&inner.metrics.api_connections);
        let stream = match timeout(inner.settings.handshake_time, inner.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(target: "latchkey::session", %peer, %error, "TLS handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!(target: "latchkey::session", %peer, "TLS handshake took too long");
                return;
            }
        };
        let key = stream.get_ref().1.peer_certificates().and_then(|chain| client_key(chain.first()?));
        Arc::clone(inner).serve_http(stream, peer, key).await;
    }
}

/// When a connection was last of use.
struct Activity {
    start: Instant,
    under_way: AtomicUsize,
    idle_since: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { start: Instant::now(), under_way: AtomicUsize::new(0), idle_since: AtomicU64::new(0) }
    }

    fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(now, Ordering::Relaxed);
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until nothing was asked for `idle_time`, or the connection is `connection_time` old.
    async fn over(&self, idle_time: Duration, connection_time: Duration) {
        loop {
            let idle_since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
            let busy = self.under_way.load(Ordering::Relaxed) > 0;
            let age = self.start.elapsed();
            let idle_end = if busy { age + idle_time } else { idle_since + idle_time };
            let end = idle_end.min(connection_time);
            let Some(left) = end.checked_sub(age).filter(|left| !left.is_zero()) else { return };
            tokio::time::sleep(left).await;
        }
    }
}

/// Ends an activity also when its request is given up.
struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Inner {
    async fn serve_http(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: IpAddr,
        key: Option<Fingerprint>,
    ) {
        let activity = Arc::new(Activity::new());
        let (idle_time, connection_time) = (self.settings.idle_time, self.settings.connection_time);
        let service = {
            let activity = Arc::clone(&activity);
            service_fn(move |request: Request<Incoming>| {
                activity.begin();
                let busy = Busy(Arc::clone(&activity));
                let inner = Arc::clone(&self);
                async move {
                    let _busy = busy;
                    Ok::<_, Infallible>(inner.answer(request, peer, key).await)
                }
            })
        };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(idle_time)
            .max_headers(64)
            .max_buf_size(2 * MAX_BODY_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(8)
            .max_header_list_size(16 * 1024)
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(128 * 1024)
            .max_send_buf_size(64 * 1024);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = activity.over(idle_time, connection_time) => {
                connection.as_mut().graceful_shutdown();
                timeout(Duration::from_secs(1), connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(target: "latchkey::session", %peer, %error, "connection ended");
        }
    }
}
