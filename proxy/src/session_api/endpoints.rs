//! What the session API says: the way to each endpoint, and what each answers.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use rand::Rng as _;
use route_table::{Fingerprint, RouteTable};
use serde::Serialize;
use snitun::random::Random;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    Grant, MAX_BODY_BYTES, Problem, ProblemKind, Report, decide_issue, decide_session,
    issue::IssuedToken,
    limiter::client_network,
    parse_enrol_request, parse_issue_request, parse_session_request,
    problem::whole_seconds,
    server::Inner,
    session::{SessionReply, route_of},
};
use crate::{clock, metrics::Answer};

impl Inner {
    pub(super) async fn answer(
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
        route_of(&table, key)?;
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
        route_of(&table, key)?;
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
            route: route.clone(),
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
