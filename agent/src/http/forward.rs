//! One request: whose it is, whether it is ours, and its way to the instance and back.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::HttpFront;
use super::body::{Answer, Upload};
use super::pages::Page;
use super::{authority, hop_by_hop};
use crate::channel::forward_client_address::{remove_claims, set_forwarded};

/// Whose connection a request came on.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// The name the TLS connection was opened for.
    pub sni: Option<Arc<str>>,
}

/// Answers a request, by the instance or by a page.
pub async fn forward(
    front: &Arc<HttpFront>,
    visitor: &Visitor,
    request: Request<Incoming>,
) -> Response<Answer> {
    match try_forward(front, visitor, request).await {
        Ok(response) => response,
        Err(page) => page.response(),
    }
}

async fn try_forward(
    front: &Arc<HttpFront>,
    visitor: &Visitor,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Page> {
    if request.method() == Method::CONNECT {
        return Err(Page::NotAProxy);
    }
    let authority = authority::of(&request)?;
    if !authority::is_ours(&authority, visitor.sni.as_deref(), &front.certificates.hostnames()) {
        return Err(Page::Misdirected);
    }
    let under_way = front.requests.clone().try_acquire_owned().map_err(|_| Page::Busy)?;

    let upgrade = hop_by_hop::upgrade(request.headers());
    let from_visitor = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));

    let (mut parts, body) = request.into_parts();
    hop_by_hop::remove_from_request(&mut parts.headers);
    remove_claims(&mut parts.headers);
    parts.headers.insert(HOST, authority::header(&authority)?);
    if front.forwarded_headers {
        set_forwarded(&mut parts.headers, visitor.address);
    }
    if let Some(protocol) = upgrade {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol);
    }
    parts.uri = to_target(parts.uri.path_and_query())?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();

    let response = send(front, Request::from_parts(parts, Upload::of(body))).await?;
    if front.forwarded_headers
        && let Some(advice) = front.trust_hint.look(&response, &front.target)
    {
        tracing::warn!("{advice}");
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch_protocols(front, from_visitor, response);
    }
    let (mut parts, body) = response.into_parts();
    hop_by_hop::remove_from_response(&mut parts.headers);
    // The version is that of our own connection with the visitor.
    parts.version = Version::default();
    parts.extensions.clear();
    Ok(Response::from_parts(parts, Answer::stream(body, under_way)))
}

/// The authority is for the pool alone: every connection leads to the target.
fn to_target(path: Option<&PathAndQuery>) -> Result<Uri, Page> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(http::uri::Authority::from_static("target"));
    parts.path_and_query = Some(path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).map_err(|_| Page::BadRequest)
}

async fn send(front: &HttpFront, request: Request<Upload>) -> Result<Response<Incoming>, Page> {
    // The instance may close a kept connection just when we use it. What can be said twice is.
    let again = {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let bodyless = hyper::body::Body::is_end_stream(request.body());
        (safe && bodyless && !request.headers().contains_key(UPGRADE)).then(|| {
            let mut again = Request::new(Upload::default());
            *again.method_mut() = request.method().clone();
            *again.uri_mut() = request.uri().clone();
            *again.headers_mut() = request.headers().clone();
            again
        })
    };
    match (send_once(front, request).await, again) {
        (Err(Failure::BrokeOff(error)), Some(again)) => {
            tracing::debug!(%error, "the instance broke off, asking again");
            send_once(front, again).await.map_err(|failure| failure.page(front))
        }
        (outcome, _) => outcome.map_err(|failure| failure.page(front)),
    }
}

enum Failure {
    Connect(String),
    BrokeOff(String),
    TooSlow(Duration),
}

impl Failure {
    fn page(self, front: &HttpFront) -> Page {
        let target = front.target.spec();
        match self {
            Self::Connect(error) => {
                tracing::warn!(%target, %error, "cannot connect to the instance");
                Page::NoAnswer
            }
            Self::BrokeOff(error) => {
                tracing::warn!(%target, %error, "the instance broke off");
                Page::NoAnswer
            }
            Self::TooSlow(limit) => {
                tracing::warn!(%target, "the instance did not answer within {} s", limit.as_secs_f32());
                Page::TooSlow
            }
        }
    }
}

async fn send_once(front: &HttpFront, request: Request<Upload>) -> Result<Response<Incoming>, Failure> {
    let steps = request.body().steps();
    let limit = front.limits.response_timeout;
    let mut answer = std::pin::pin!(front.client.request(request));
    let mut last = 0;
    loop {
        match tokio::time::timeout(limit, &mut answer).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => {
                let text = chain(&error);
                return Err(if error.is_connect() {
                    Failure::Connect(text)
                } else {
                    Failure::BrokeOff(text)
                });
            }
            // While the visitor still sends, the instance need not answer.
            Err(_) => {
                let now = steps.load(Ordering::Relaxed);
                if now == last {
                    return Err(Failure::TooSlow(limit));
                }
                last = now;
            }
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

fn switch_protocols(
    front: &Arc<HttpFront>,
    from_visitor: Option<OnUpgrade>,
    mut response: Response<Incoming>,
) -> Result<Response<Answer>, Page> {
    let (Some(from_visitor), Some(protocol)) = (from_visitor, hop_by_hop::upgrade(response.headers())) else {
        tracing::warn!("the instance switched protocols, which nobody had asked for");
        return Err(Page::NoAnswer);
    };
    let to_target = hyper::upgrade::on(&mut response);
    let stop = front.end_upgrades.clone();
    front.upgrades.spawn(async move {
        let (visitor, target) = match tokio::try_join!(from_visitor, to_target) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "an upgrade did not come about"),
        };
        let (mut visitor, mut target) = (TokioIo::new(visitor), TokioIo::new(target));
        // Upgrades are few, and both ends are hyper's own streams.
        #[allow(clippy::disallowed_methods)]
        let copied = tokio::io::copy_bidirectional(&mut visitor, &mut target);
        tokio::select! {
            _ = copied => {}
            () = stop.cancelled() => {}
        }
    });
    let (mut parts, _) = response.into_parts();
    hop_by_hop::remove_from_response(&mut parts.headers);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, protocol);
    let mut switched = Response::new(Answer::empty());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = parts.headers;
    Ok(switched)
}
