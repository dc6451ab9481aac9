//! Which version of the product runs behind the agent: from a file, an address, the environment or a flag.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::settings::Product;

/// More than any version needs, and enough for an instance's small JSON.
const LARGEST: usize = 4 * 1024;
const LONGEST: usize = 128;
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Where the version comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionSource {
    /// Nobody says.
    Unknown,
    /// It does not change while the agent runs: a flag or the environment.
    Fixed(String),
    /// The first line of a file.
    File(PathBuf),
    /// The answer of an address, or a member of it.
    Url {
        /// Where to ask.
        uri: Uri,
        /// JSON pointer into the answer.
        pointer: Option<String>,
    },
}

impl VersionSource {
    /// As the command line says.
    pub fn from_settings(product: &Product) -> Result<Self, String> {
        if let Some(text) = &product.product_version {
            return clean(text).map(Self::Fixed).map_err(|what| format!("--product-version: {what}"));
        }
        if let Some(name) = &product.product_version_env {
            let text =
                std::env::var(name).map_err(|error| format!("--product-version-env {name}: {error}"))?;
            return clean(&text)
                .map(Self::Fixed)
                .map_err(|what| format!("--product-version-env {name}: {what}"));
        }
        if let Some(path) = &product.product_version_file {
            return Ok(Self::File(path.clone()));
        }
        if let Some(url) = &product.product_version_url {
            let uri: Uri = url.parse().map_err(|error| format!("--product-version-url {url}: {error}"))?;
            if uri.scheme_str() != Some("http") || uri.host().is_none() {
                return Err(format!("--product-version-url {url}: only http://HOST:PORT/PATH can be asked"));
            }
            return Ok(Self::Url { uri, pointer: product.product_version_pointer.clone() });
        }
        Ok(Self::Unknown)
    }

    /// Reads the version now.
    pub async fn read(&self) -> Result<Option<String>, String> {
        match self {
            Self::Unknown => Ok(None),
            Self::Fixed(text) => Ok(Some(text.clone())),
            Self::File(path) => {
                let text = read_file(path).await.map_err(|error| format!("{}: {error}", path.display()))?;
                clean(&text).map(Some).map_err(|what| format!("{}: {what}", path.display()))
            }
            Self::Url { uri, pointer } => {
                let asked = tokio::time::timeout(TIME_LIMIT, ask(uri)).await;
                let body = asked.unwrap_or_else(|_| Err("no answer in time".into()));
                let version = body.and_then(|body| match pointer {
                    Some(pointer) => at(pointer, &body),
                    None => clean(&String::from_utf8_lossy(&body)),
                });
                version.map(Some).map_err(|what| format!("{uri}: {what}"))
            }
        }
    }

    fn may_change(&self) -> bool {
        matches!(self, Self::File(_) | Self::Url { .. })
    }

    /// Reads it again and again and tells of changes; runs for ever. While it cannot be read the last one stands.
    pub async fn watch(self, every: Duration, told: Arc<watch::Sender<Option<String>>>) {
        if !self.may_change() {
            return std::future::pending().await;
        }
        let mut complained = None;
        loop {
            tokio::time::sleep(every.max(Duration::from_millis(100))).await;
            match self.read().await {
                Ok(version) => {
                    complained = None;
                    told.send_if_modified(|last| {
                        let changed = *last != version;
                        if changed {
                            tracing::info!(
                                from = last.as_deref(),
                                to = version.as_deref(),
                                "the product's version changed"
                            );
                            *last = version;
                        }
                        changed
                    });
                }
                Err(what) if complained.as_ref() != Some(&what) => {
                    tracing::warn!("the product's version cannot be read: {what}");
                    complained = Some(what);
                }
                Err(_) => {}
            }
        }
    }
}

async fn read_file(path: &PathBuf) -> io::Result<String> {
    let mut text = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(LARGEST as u64 + 1).read_to_end(&mut text).await?;
    if text.len() > LARGEST {
        return Err(io::Error::other(format!("is longer than {LARGEST} bytes, this is no version")));
    }
    String::from_utf8(text).map_err(|_| io::Error::other("is not text"))
}

/// The first line with something on it.
fn clean(text: &str) -> Result<String, String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).ok_or("is empty")?;
    if line.len() > LONGEST || line.contains(char::is_control) {
        return Err(format!("does not hold a version (one line, {LONGEST} characters at most)"));
    }
    Ok(line.to_owned())
}

fn at(pointer: &str, body: &[u8]) -> Result<String, String> {
    let json: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
    match json.pointer(pointer) {
        Some(serde_json::Value::String(text)) => clean(text),
        Some(_) => Err(format!("what stands at {pointer} is not a string")),
        None => Err(format!("nothing stands at {pointer}")),
    }
}

async fn ask(uri: &Uri) -> Result<Bytes, String> {
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(80);
    let tcp = TcpStream::connect((host.trim_start_matches('[').trim_end_matches(']'), port)).await;
    let stream = TokioIo::new(tcp.map_err(|error| error.to_string())?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path).header(HOST, authority).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    tokio::select! {
        biased;
        body = &mut answer => body,
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with these bytes.
    async fn answering(body: &'static str) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/api/version", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = peer.read(&mut request).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            peer.write_all(answer.as_bytes()).await.unwrap();
        });
        uri
    }

    #[tokio::test]
    async fn from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".HA_VERSION");
        let source = VersionSource::File(path.clone());
        assert!(source.read().await.unwrap_err().contains(".HA_VERSION"));
        std::fs::write(&path, "2026.11.1\n").unwrap();
        assert_eq!(source.read().await.unwrap().as_deref(), Some("2026.11.1"));
        std::fs::write(&path, "x".repeat(LARGEST + 1)).unwrap();
        assert!(source.read().await.unwrap_err().contains("longer"));
        std::fs::write(&path, "  \n").unwrap();
        assert!(source.read().await.unwrap_err().contains("empty"));
    }

    #[tokio::test]
    async fn from_an_address() {
        let uri = answering("1.2.3").await;
        let source = VersionSource::Url { uri, pointer: None };
        assert_eq!(source.read().await.unwrap().as_deref(), Some("1.2.3"));
        let uri = answering(r#"{"a":{"version":"2.0"}}"#).await;
        let source = VersionSource::Url { uri, pointer: Some("/a/version".into()) };
        assert_eq!(source.read().await.unwrap().as_deref(), Some("2.0"));
        let uri = answering(r#"{"version":2}"#).await;
        let source = VersionSource::Url { uri, pointer: Some("/version".into()) };
        assert!(source.read().await.unwrap_err().contains("not a string"));
    }

    #[tokio::test]
    async fn a_change_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        std::fs::write(&path, "1").unwrap();
        let (told, mut heard) = watch::channel(Some("1".to_owned()));
        let source = VersionSource::File(path.clone());
        let watching = tokio::spawn(source.watch(Duration::from_millis(100), Arc::new(told)));
        std::fs::write(&path, "2").unwrap();
        heard.changed().await.unwrap();
        assert_eq!(heard.borrow_and_update().as_deref(), Some("2"));
        std::fs::remove_file(&path).unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(350), heard.changed()).await.is_err(),
            "what cannot be read is no change"
        );
        watching.abort();
    }
}
