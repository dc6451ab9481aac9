//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/tunnels`. Apart from the public port, with a thread
//! and a runtime of its own, so that it answers also while the data threads are busy.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use admin_page::{Answer, Asked, json, json_text, open_metrics, text};
use http::StatusCode;
use serde::Serialize;
use tokio::{net::TcpListener, sync::oneshot};

use crate::metrics::Metrics;

/// Tunnels on a page unless asked otherwise, and at most.
const PAGE: (usize, usize) = (100, 1000);

/// What the admin listener asks the proxy.
pub trait AdminView: Send + Sync + 'static {
    /// May traffic be sent here?
    fn ready(&self) -> Readiness;
    /// Up to `limit` tunnels whose [`TunnelRow::key`] is greater than `after`, in the order of that key.
    fn tunnels(&self, after: Option<&str>, limit: usize) -> Vec<TunnelRow>;
    /// A page of its own, as JSON: what embeds a proxy may have more to show.
    fn page(&self, _path: &str) -> Option<String> {
        None
    }
    /// Sets the metrics that are not counted as things happen (ages). Called before each scrape.
    fn before_scrape(&self, _metrics: &Metrics) {}
}

/// One thing that must hold before traffic is sent here.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which: `routes`, `listener`, `draining`, `keys`, ...
    pub name: &'static str,
    /// Does it stand in nobody's way?
    pub ok: bool,
    /// What there is to say about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How old what it speaks of is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
}

impl Condition {
    /// A condition with nothing to add.
    pub const fn new(name: &'static str, ok: bool) -> Self {
        Self { name, ok, message: None, age_seconds: None }
    }

    /// With a message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// With the age of what it speaks of.
    #[must_use]
    pub fn with_age(mut self, age: Duration) -> Self {
        self.age_seconds = Some(age.as_secs_f64());
        self
    }
}

/// Every condition; ready when all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readiness {
    /// The conditions.
    pub conditions: Vec<Condition>,
}

impl Readiness {
    /// Do all conditions hold?
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().all(|condition| condition.ok)
    }
}

/// One open tunnel.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelRow {
    /// Orders the pages: `instance#session`, for example. Given back as `after`.
    pub key: String,
    /// The instance, or the hostname where there is no route table.
    pub instance: String,
    /// The number of the session.
    pub session: u64,
    /// Since when, in Unix seconds.
    pub since: f64,
    /// The agent's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<IpAddr>,
    /// The product version it reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The agent's own version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The protocol version its token names.
    pub protocol: u8,
    /// The cipher of the session.
    pub cipher: &'static str,
    /// Channels open at this moment.
    pub channels: usize,
    /// Bytes from visitors.
    pub bytes_in: u64,
    /// Bytes to visitors.
    pub bytes_out: u64,
    /// How long ago it answered a ping; absent before the first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pong_age_seconds: Option<f64>,
}

/// The admin listener while it runs. Dropping it stops it.
pub struct AdminServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for AdminServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl AdminServer {
    /// Binds `address` and serves on a thread of its own.
    pub fn start(address: SocketAddr, view: Arc<dyn AdminView>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let listener = match TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => {
                        tracing::error!(target: "latchkey::admin", %error, "the admin listener cannot start");
                        return;
                    }
                };
                tokio::select! {
                    () = serve(listener, view, metrics) => {}
                    _ = stopped => {}
                }
            });
        })?;
        tracing::info!(target: "latchkey::admin", %address, "admin listener");
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves the admin pages on `listener`, for ever.
pub async fn serve(listener: TcpListener, view: Arc<dyn AdminView>, metrics: Arc<Metrics>) {
    admin_page::serve(listener, move |asked| answer(asked, &*view, &metrics)).await;
}

fn answer(asked: Asked<'_>, view: &dyn AdminView, metrics: &Metrics) -> Answer {
    match asked.path {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readiness(&view.ready()),
        "/metrics" => {
            view.before_scrape(metrics);
            match metrics.render() {
                Ok(body) => open_metrics(body),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
            }
        }
        "/tunnels" => match page(asked.query) {
            Ok((after, limit)) => tunnels(view, after.as_deref(), limit),
            Err(message) => text(StatusCode::BAD_REQUEST, message),
        },
        "/" => text(StatusCode::OK, "latchkey-proxy admin: /livez /readyz /metrics /tunnels?limit=&after=\n"),
        path => match view.page(path) {
            Some(body) => json_text(body),
            None => text(StatusCode::NOT_FOUND, "no such page; see /\n"),
        },
    }
}

fn readiness(readiness: &Readiness) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        ready: bool,
        conditions: &'a [Condition],
    }
    let ready = readiness.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &Body { ready, conditions: &readiness.conditions })
}

fn tunnels(view: &dyn AdminView, after: Option<&str>, limit: usize) -> Answer {
    #[derive(Serialize)]
    struct Body {
        tunnels: Vec<TunnelRow>,
        /// Ask again with `after=` this; null at the end.
        next: Option<String>,
    }
    // One more than asked for tells whether there is a next page.
    let mut rows = view.tunnels(after, limit.saturating_add(1));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = if more { rows.last().map(|row| row.key.clone()) } else { None };
    json(StatusCode::OK, &Body { tunnels: rows, next })
}

/// Reads `?limit=&after=`.
fn page(query: &str) -> Result<(Option<String>, usize), &'static str> {
    let (mut after, mut limit) = (None, PAGE.0);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("limit", value)) => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=PAGE.1).contains(limit))
                    .ok_or("limit takes a number from 1 to 1000\n")?;
            }
            Some(("after", "")) => after = None,
            Some(("after", value)) => {
                after = Some(percent_decoded(value).ok_or("after is not percent-encoded UTF-8\n")?);
            }
            _ => return Err("only limit and after are known here\n"),
        }
    }
    Ok((after, limit))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    struct View(AtomicBool);

    fn row(name: &str) -> TunnelRow {
        TunnelRow {
            key: name.to_owned(),
            instance: name.to_owned(),
            session: 3,
            since: 1.5,
            agent: None,
            version: Some("2026.11.1".to_owned()),
            agent_version: None,
            protocol: 2,
            cipher: "aes-gcm-siv",
            channels: 1,
            bytes_in: 2,
            bytes_out: 3,
            last_pong_age_seconds: Some(0.25),
        }
    }

    impl AdminView for View {
        fn ready(&self) -> Readiness {
            let ok = self.0.load(Ordering::Relaxed);
            let routes = Condition::new("routes", ok).with_age(Duration::from_secs(2));
            let routes = if ok { routes } else { routes.with_message("line 3: no such field") };
            Readiness { conditions: vec![Condition::new("listener", true), routes] }
        }

        fn tunnels(&self, after: Option<&str>, limit: usize) -> Vec<TunnelRow> {
            let names = ["homes/a", "homes/b", "homes/c"];
            names
                .into_iter()
                .filter(|name| after.is_none_or(|after| *name > after))
                .map(row)
                .take(limit)
                .collect()
        }

        fn before_scrape(&self, metrics: &Metrics) {
            metrics.oldest_pong.set(12.5);
        }
    }

    fn server(ready: bool) -> AdminServer {
        let view = Arc::new(View(AtomicBool::new(ready)));
        AdminServer::start(([127, 0, 0, 1], 0).into(), view, Arc::new(Metrics::new())).unwrap()
    }

    fn ask(server: &AdminServer, method: &str, path: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    #[test]
    fn alive_and_ready_are_two_questions() {
        let unready = server(false);
        assert_eq!(ask(&unready, "GET", "/livez"), (200, "ok\n".to_owned()));
        let (status, body) = ask(&unready, "GET", "/readyz");
        assert_eq!(status, 503);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ready"], false);
        assert_eq!(body["conditions"][1]["name"], "routes");
        assert_eq!(body["conditions"][1]["message"], "line 3: no such field");
        assert_eq!(body["conditions"][1]["ageSeconds"], 2.0);
        assert_eq!(ask(&server(true), "GET", "/readyz").0, 200);
    }

    #[test]
    fn metrics_are_brought_up_to_date_before_a_scrape() {
        let (status, body) = ask(&server(true), "GET", "/metrics");
        assert_eq!(status, 200);
        assert!(body.contains("latchkey_proxy_tunnel_oldest_pong_age_seconds 12.5\n"), "{body}");
    }

    #[test]
    fn tunnels_come_in_pages() {
        let server = server(true);
        let get = |path: &str| -> serde_json::Value {
            let (status, body) = ask(&server, "GET", path);
            assert_eq!(status, 200, "{body}");
            serde_json::from_str(&body).unwrap()
        };
        let first = get("/tunnels?limit=2");
        assert_eq!(first["tunnels"].as_array().unwrap().len(), 2);
        assert_eq!(first["tunnels"][0]["lastPongAgeSeconds"], 0.25);
        assert_eq!(first["next"], "homes/b");
        let last = get("/tunnels?limit=2&after=homes%2Fb");
        assert_eq!(last["tunnels"][0]["instance"], "homes/c");
        assert_eq!(last["next"], serde_json::Value::Null);
        for bad in ["limit=0", "limit=1001", "limit=x", "page=2", "after=%zz"] {
            assert_eq!(ask(&server, "GET", &format!("/tunnels?{bad}")).0, 400, "{bad}");
        }
    }

    #[test]
    fn other_methods_and_pages_are_refused() {
        let server = server(true);
        assert_eq!(ask(&server, "POST", "/readyz").0, 405);
        assert_eq!(ask(&server, "GET", "/debug").0, 404);
    }

    #[test]
    fn dropping_it_frees_the_port() {
        let server = server(true);
        let address = server.address();
        drop(server);
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
