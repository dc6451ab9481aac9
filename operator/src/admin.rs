//! A small HTTP server for whoever watches the operator: /livez, /readyz, /metrics, /proxies and /status.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use board::{STATUS_PATH, Selection};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

const HEADER_TIME_LIMIT: Duration = Duration::from_secs(5);
/// Connections served at once.
const CONNECTIONS: usize = 32;

/// What there is to see.
pub trait Sight: Send + Sync + 'static {
    /// May this process be counted on, and why (not)?
    fn readiness(&self) -> (bool, String);
    /// Figures in Prometheus' text format.
    fn metrics(&self) -> String;
    /// The proxies that are attached, as JSON.
    fn proxies(&self) -> String;
    /// The board with the instances that were asked for, as JSON.
    fn status(&self, selection: &Selection) -> String;
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, sight: Arc<dyn Sight>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let sight = Arc::clone(&sight);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &*sight);
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME_LIMIT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, sight: &dyn Sight) -> Response<Full<Bytes>> {
    let of_type = |status: StatusCode, kind: &'static str, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    };
    let text = |status, text| of_type(status, "text/plain; charset=utf-8", text);
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => match sight.readiness() {
            (true, why) => text(StatusCode::OK, why + "\n"),
            (false, why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        },
        "/metrics" => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            of_type(StatusCode::OK, kind, sight.metrics())
        }
        "/proxies" => of_type(StatusCode::OK, "application/json", sight.proxies()),
        STATUS_PATH => match Selection::read(request.uri().query().unwrap_or_default()) {
            Ok(selection) => of_type(StatusCode::OK, "application/json", sight.status(&selection)),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "/livez, /readyz, /metrics, /proxies or /status\n".into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Ready(bool);

    impl Sight for Ready {
        fn readiness(&self) -> (bool, String) {
            (self.0, "why".to_owned())
        }

        fn metrics(&self) -> String {
            "# EOF\n".to_owned()
        }

        fn proxies(&self) -> String {
            "[]".to_owned()
        }

        fn status(&self, selection: &Selection) -> String {
            selection.query()
        }
    }

    #[tokio::test]
    async fn every_page_answers() {
        for ready in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(serve(listener, Arc::new(Ready(ready))));
            let get = |path: &'static str| async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                answer
            };
            assert!(get("/livez").await.starts_with("HTTP/1.1 200"));
            let readyz = get("/readyz").await;
            assert!(readyz.starts_with(if ready { "HTTP/1.1 200" } else { "HTTP/1.1 503" }), "{readyz}");
            assert!(readyz.ends_with("why\n"));
            assert!(get("/metrics").await.contains("openmetrics"));
            assert!(get("/proxies").await.ends_with("[]"));
            assert!(get("/status?limit=7&all").await.ends_with("limit=7&all"));
            assert!(get("/status?x").await.starts_with("HTTP/1.1 400"));
            assert!(get("/x").await.starts_with("HTTP/1.1 404"));
        }
    }
}
