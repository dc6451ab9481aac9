//! The pages for whoever watches the agent: /livez, /readyz and /metrics.

use std::sync::Arc;

use admin_page::{Answer, Asked, respond, text};
use http::StatusCode;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// Prometheus' own format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves for ever.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    admin_page::serve(listener, move |asked| answer(asked, &metrics)).await;
}

fn answer(asked: Asked<'_>, metrics: &Metrics) -> Answer {
    match asked.path {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" if metrics.is_connected() => text(StatusCode::OK, "ok\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "no tunnel\n"),
        "/metrics" => respond(StatusCode::OK, PROMETHEUS, metrics.text()),
        _ => text(StatusCode::NOT_FOUND, "/livez, /readyz or /metrics\n"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn readiness_follows_the_tunnel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::default());
        tokio::spawn(serve(listener, metrics.clone()));
        let get = |path: &'static str| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert!(get("/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get("/readyz").await.starts_with("HTTP/1.1 503"));
        metrics.set_connected(true);
        assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get("/metrics").await.contains("latchkey_agent_connected 1"));
        assert!(get("/x").await.starts_with("HTTP/1.1 404"));
    }
}
