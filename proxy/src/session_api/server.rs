//! How the session API is carried: TLS, HTTP/1.1 and HTTP/2, limits, and the way to each endpoint.

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

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rand::Rng as _;
use route_table::{Fingerprint, RouteTable};
use serde::Serialize;
use snitun::random::Random;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::{
    Allowance, ApiIdentity, ApiTlsError, Enrolment, Grant, Limiter, MAX_BODY_BYTES, Problem, ProblemKind,
    Report, Reports, TokenTerms, client_key, comeback::Comeback, decide_issue, decide_session,
    issue::IssuedToken, limiter::client_network, parse_enrol_request, parse_issue_request,
    parse_session_request, problem::whole_seconds, session::SessionReply,
};
use crate::{
    clock,
    fernet_keys::FernetKeyRing,
    metrics::{Answer, Held, Metrics, RefusalReason},
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

struct Inner {
    settings: SessionApiSettings,
    acceptor: TlsAcceptor,
    identity: Arc<ApiIdentity>,
    table: TableSource,
    keys: Arc<FernetKeyRing>,
    metrics: Arc<Metrics>,
    reports: Arc<dyn Reports>,
    enrolment: Arc<dyn Enrolment>,
    room: Arc<Semaphore>,
    handshakes: Limiter<IpAddr>,
    requests: Limiter<IpAddr>,
    by_key: Limiter<[u8; 32]>,
    comeback: Comeback,
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

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        key: Option<Fingerprint>,
    ) -> Response<Full<Bytes>> {
        let endpoint = request.uri().path().to_owned();
        let response = match self.endpoint(request, peer, key).await {
            Ok(body) => respond(StatusCode::OK, "application/json", body),
            Err(problem) => {
                tracing::info!(
                    target: "latchkey::session",
                    %peer,
                    key = key.map(tracing::field::display),
                    instance = problem.instance.as_deref(),
                    endpoint = ?endpoint.get(..64).unwrap_or(&endpoint),
                    status = problem.kind.status().as_u16(),
                    detail = ?problem.detail,
                    "refused"
                );
                problem_response(&problem)
            }
        };
        self.metrics.api_answers.inc(Answer::of(response.status().as_u16()));
        response
    }

    async fn endpoint(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        key: Option<Fingerprint>,
    ) -> Result<Bytes, Problem> {
        self.check_rate(peer, key.as_ref())?;
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let allowed: &'static str = match path.as_str() {
            "/" => "GET, HEAD",
            "/v1/session" | "/v1/issue" | "/v1/enrol" => "POST",
            _ => {
                return Err(Problem::new(
                    ProblemKind::NotFound,
                    "there are POST /v1/session, POST /v1/issue and POST /v1/enrol",
                ));
            }
        };
        let fits = match method {
            Method::POST => allowed == "POST",
            Method::GET | Method::HEAD => allowed != "POST",
            _ => false,
        };
        if !fits {
            return Err(Problem {
                allow: Some(allowed),
                ..Problem::new(ProblemKind::MethodNotAllowed, format!("{path} takes {allowed}"))
            });
        }
        if path == "/" {
            return front_page();
        }
        let body = self.body(request.into_body()).await?;
        let answer = match path.as_str() {
            "/v1/session" => self.session(&body, peer, key.as_ref()),
            "/v1/issue" => self.issue(&body, peer, key.as_ref()),
            _ => self.enrol(&body, key.as_ref()).await,
        };
        answer.map_err(|problem| match problem.kind {
            // Whoever is let in again waits no longer than until the next ask.
            ProblemKind::Disabled
            | ProblemKind::NotUnderstood
            | ProblemKind::Blocked
            | ProblemKind::UnknownVersion => {
                Problem { retry_after: Some(self.comeback.next(Instant::now())), ..problem }
            }
            _ => problem,
        })
    }

    fn check_rate(&self, peer: IpAddr, key: Option<&Fingerprint>) -> Result<(), Problem> {
        let now = Instant::now();
        let too_many = |who: &str| {
            let detail = format!("too many requests {who}: wait as Retry-After says");
            move |after: Duration| Problem {
                retry_after: Some(after),
                ..Problem::new(ProblemKind::TooManyRequests, detail)
            }
        };
        self.requests.check(client_network(peer), now).map_err(too_many("from this address"))?;
        if let Some(key) = key {
            self.by_key.check(*key.as_bytes(), now).map_err(too_many("with this key"))?;
        }
        Ok(())
    }

    async fn body(&self, body: Incoming) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let gathered = timeout(self.settings.body_time, Limited::new(body, MAX_BODY_BYTES).collect()).await;
        match gathered {
            Ok(Ok(body)) => Ok(Zeroizing::new(body.to_bytes().to_vec())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(Problem::new(ProblemKind::TooLarge, "the body may have 16 KiB"))
            }
            Ok(Err(_)) => Err(Problem::new(ProblemKind::BadRequest, "the body ended too soon")),
            Err(_) => Err(Problem::new(
                ProblemKind::Timeout,
                format!("the body has to be there within {} s", whole_seconds(self.settings.body_time)),
            )),
        }
    }

    fn session(&self, body: &[u8], peer: IpAddr, key: Option<&Fingerprint>) -> Result<Bytes, Problem> {
        let table = (self.table)();
        // Who asks comes before what is asked: a stranger is told how to become known.
        super::session::route_of(&table, key)?;
        let request = parse_session_request(body)?;
        let now = now_unix();
        let decided = decide_session(&table, key, &request, &self.settings.terms, now, &mut SystemRandom);
        self.report(&table, key, peer, &decided, |report| Report {
            version: request.version.clone(),
            agent_version: Some(request.agent_version.clone()),
            certificate: request.certificate.clone(),
            ..report
        });
        let grant = decided?;
        let token = self.seal(&grant, now)?;
        let (key_hex, iv_hex) =
            (Zeroizing::new(grant.token.aes_key.to_hex()), Zeroizing::new(grant.token.aes_iv.to_hex()));
        told(&grant, peer, &request.agent_version);
        json(&SessionReply {
            token: &token,
            aes_key: &key_hex,
            aes_iv: &iv_hex,
            protocol_version: grant.token.protocol_version,
            cipher: grant.token.cipher,
            server: self.settings.terms.server.as_deref(),
            hostnames: hostnames(&grant),
            valid_until: grant.valid_until,
            session: &grant.session,
            instance: grant.route.id.as_str(),
            warnings: &grant.warned_by,
            next_ca: self.identity.next_ca().as_deref(),
            server_time: now,
        })
    }

    fn issue(&self, body: &[u8], peer: IpAddr, key: Option<&Fingerprint>) -> Result<Bytes, Problem> {
        let table = (self.table)();
        super::session::route_of(&table, key)?;
        let request = parse_issue_request(body)?;
        let now = now_unix();
        let decided = decide_issue(&table, key, &request, &self.settings.terms, now, &mut SystemRandom);
        self.report(&table, key, peer, &decided, |report| Report {
            version: request.version.clone(),
            ..report
        });
        let grant = decided?;
        let token = self.seal(&grant, now)?;
        told(&grant, peer, "stock");
        json(&IssuedToken {
            token: &token,
            valid: grant.valid_until,
            server: self.settings.terms.server.as_deref(),
            hostnames: hostnames(&grant),
            protocol_version: grant.token.protocol_version,
            cipher: grant.token.cipher,
            warnings: &grant.warned_by,
            server_time: now,
        })
    }

    async fn enrol(&self, body: &[u8], key: Option<&Fingerprint>) -> Result<Bytes, Problem> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Reply<'a> {
            instance: &'a str,
            server_time: u64,
        }
        let enrolled = self.enrolment.enrol(parse_enrol_request(body, key)?).await?;
        json(&Reply { instance: &enrolled.instance, server_time: now_unix() })
    }

    fn seal(&self, grant: &Grant, now: u64) -> Result<Zeroizing<String>, Problem> {
        grant.seal(&self.keys.current(), now, &mut SystemRandom).map(Zeroizing::new).map_err(|error| {
            tracing::error!(target: "latchkey::session", instance = %grant.route.id, %error, "no token can be made");
            Problem::new(ProblemKind::Internal, format!("no token can be made for {}: {error}", grant.route.id))
        })
    }

    /// Tells what an agent said, whatever came of it.
    fn report(
        &self,
        table: &RouteTable,
        key: Option<&Fingerprint>,
        peer: IpAddr,
        decided: &Result<Grant, Problem>,
        fill: impl FnOnce(Report) -> Report,
    ) {
        let Some((key, route)) = key.and_then(|key| Some((key, table.by_agent_key(key)?))) else { return };
        self.reports.reported(fill(Report {
            route: Arc::clone(route),
            key: *key,
            peer,
            version: None,
            agent_version: None,
            certificate: None,
            session: decided.as_ref().ok().map(|grant| grant.session.clone()),
        }));
    }
}

fn told(grant: &Grant, peer: IpAddr, agent: &str) {
    tracing::info!(
        target: "latchkey::session",
        instance = %grant.route.id,
        session = grant.session,
        %peer,
        agent = ?agent,
        protocol = grant.token.protocol_version.number(),
        cipher = %grant.token.cipher,
        warnings = grant.warned_by.len(),
        "session granted"
    );
}

fn hostnames(grant: &Grant) -> Vec<&str> {
    grant.route.hostnames.iter().map(route_table::HostName::as_str).collect()
}

fn front_page() -> Result<Bytes, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        service: &'static str,
        authentication: &'static str,
        endpoints: [&'static str; 3],
        server_time: u64,
    }
    json(&Page {
        service: "Latchkey session API",
        authentication: "TLS client certificate, self-signed; the SHA-256 of its public key is listed in agentKeys",
        endpoints: ["POST /v1/session", "POST /v1/issue", "POST /v1/enrol"],
        server_time: now_unix(),
    })
}

fn json(body: &impl Serialize) -> Result<Bytes, Problem> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| {
        Problem::new(ProblemKind::Internal, format!("the answer cannot be written: {error}"))
    })
}

fn problem_response(problem: &Problem) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(&problem.document(now_unix())).unwrap_or_default();
    let mut response = respond(problem.kind.status(), "application/problem+json", body.into());
    let headers = response.headers_mut();
    if let Some(after) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    if let Some(allow) = problem.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        // There has to be one, and none is registered for client certificates.
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("TLS-Client-Certificate"));
    }
    response
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn now_unix() -> u64 {
    clock::unix().as_secs()
}

/// The thread's generator, seeded by the system.
struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) {
        rand::rng().fill_bytes(out);
    }
}
