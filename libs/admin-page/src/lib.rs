//! A small HTTP server for whoever watches a process: probes, metrics, and people with questions. It reads and never
//! changes anything, so GET and HEAD are all it knows. What stands on which page is the caller's.

#![forbid(unsafe_code)]

mod answer;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Request, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

pub use answer::{Answer, json, json_text, open_metrics, respond, text};

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long one connection may last.
const CONNECTION_TIME: Duration = Duration::from_mins(1);
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A request's head, and what is buffered of an answer.
const BUFFER: usize = 16 << 10;
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The page.
    pub path: &'a str,
    /// What stands behind the question mark; nothing where there is none.
    pub query: &'a str,
}

/// Serves on `listener`, for ever. `pages` knows every page, and what to say to one there is not.
pub async fn serve<P>(listener: TcpListener, pages: P)
where
    P: Fn(Asked<'_>) -> Answer + Send + Sync + 'static,
{
    let pages = Arc::new(pages);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    let _permit = permit;
                    let _ = tokio::time::timeout(CONNECTION_TIME, connection(stream, &*pages)).await;
                });
            }
            Err(error) => {
                tracing::warn!(target: "latchkey::admin", %error, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<P: Fn(Asked<'_>) -> Answer>(stream: TcpStream, pages: &P) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, pages);
        async move { Ok::<_, Infallible>(answer) }
    });
    let result = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(target: "latchkey::admin", %error, "connection ended");
    }
}

fn answer<B, P: Fn(Asked<'_>) -> Answer>(request: &Request<B>, pages: &P) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD here\n");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let uri = request.uri();
    pages(Asked { path: uri.path(), query: uri.query().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, |asked| match asked.path {
            "/page" => text(StatusCode::OK, format!("asked for {}", asked.query)),
            "/numbers" => json(StatusCode::OK, &[1, 2]),
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{request}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn pages_are_asked_with_what_they_are_asked_for() {
        let page = ask("GET /page?limit=2&all HTTP/1.1").await;
        assert!(page.starts_with("HTTP/1.1 200") && page.ends_with("asked for limit=2&all"), "{page}");
        assert!(page.contains("cache-control: no-store"), "{page}");
        let page = ask("GET /numbers HTTP/1.1").await;
        assert!(page.contains("application/json") && page.ends_with("[1,2]"), "{page}");
        assert!(ask("GET /x HTTP/1.1").await.starts_with("HTTP/1.1 404"));
        let head = ask("HEAD /page HTTP/1.1").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn nothing_can_be_changed() {
        for method in ["POST", "PUT", "DELETE"] {
            let refused = ask(&format!("{method} /page HTTP/1.1")).await;
            assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET, HEAD"), "{refused}");
        }
    }
}
