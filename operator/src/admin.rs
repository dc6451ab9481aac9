//! The pages for whoever watches the operator: /livez, /readyz, /metrics, /proxies and /status.

use std::sync::Arc;

use admin_page::{Answer, Asked, json_text, open_metrics, text};
use board::{STATUS_PATH, Selection};
use http::StatusCode;
use tokio::net::TcpListener;

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
    admin_page::serve(listener, move |asked| answer(asked, &*sight)).await;
}

fn answer(asked: Asked<'_>, sight: &dyn Sight) -> Answer {
    match asked.path {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match sight.readiness() {
            (true, why) => text(StatusCode::OK, why + "\n"),
            (false, why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        },
        "/metrics" => open_metrics(sight.metrics()),
        "/proxies" => json_text(sight.proxies()),
        STATUS_PATH => match Selection::read(asked.query) {
            Ok(selection) => json_text(sight.status(&selection)),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "/livez, /readyz, /metrics, /proxies or /status\n"),
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
