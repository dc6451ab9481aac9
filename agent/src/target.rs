//! The instance behind the agent: its name, the addresses behind the name, and which of them answered last.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

/// A name is looked up again after this long, and at once when no address behind it answers.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// However often connections fail, names are not looked up more often than this.
const RESOLVE_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Where the instance is, as written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSpec {
    /// A host (name or address) and a port.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl FromStr for TargetSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("`unix:` needs the path of a socket, such as unix:/run/instance.sock".into());
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (host, port) = split_host_port(text)?;
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Splits `HOST:PORT`, `IPV4:PORT` and `[IPV6]:PORT`.
pub fn split_host_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is not HOST:PORT (an IPv6 address goes in brackets: [::1]:8123)");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

/// A connection that has been begun; the kernel may still be at it, which reads and writes will wait for.
#[derive(Debug)]
pub enum Begun {
    /// To a host.
    Tcp(TcpStream),
    /// To a unix socket.
    Unix(UnixStream),
}

/// The target, with what is known about it at the moment.
#[derive(Debug)]
pub struct Target {
    spec: TargetSpec,
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// Counts failures: the address to try is this one, modulo their number.
    turn: AtomicUsize,
    look_again: Notify,
    /// Our own address as the target sees it.
    seen_as: ArcSwapOption<IpAddr>,
}

impl Target {
    /// Looks the target up. A name that does not resolve yet is no error: the instance may start after us.
    pub async fn resolve(spec: TargetSpec) -> Arc<Self> {
        let target = Self::unresolved(spec);
        target.look_up().await;
        target
    }

    /// A target that was not looked up yet.
    pub(crate) fn unresolved(spec: TargetSpec) -> Arc<Self> {
        Arc::new(Self {
            spec,
            addresses: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            look_again: Notify::new(),
            seen_as: ArcSwapOption::empty(),
        })
    }

    /// As written on the command line.
    pub fn spec(&self) -> &TargetSpec {
        &self.spec
    }

    /// The address that is tried first at the moment.
    pub fn address(&self) -> Option<SocketAddr> {
        let addresses = self.addresses.load();
        let turn = self.turn.load(Ordering::Relaxed);
        addresses.get(turn.checked_rem(addresses.len())?).copied()
    }

    /// Begins to connect and returns at once: no name lookup, no waiting, no allocation.
    pub fn begin_connect(&self) -> io::Result<Begun> {
        match &self.spec {
            TargetSpec::Tcp { .. } => {
                let Some(address) = self.address() else {
                    self.look_again.notify_one();
                    return Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        format!("no address is known for {}", self.spec),
                    ));
                };
                begin_tcp(address).map(Begun::Tcp).inspect_err(|_| self.failed())
            }
            TargetSpec::Unix(path) => {
                // Connects at once, or fails at once when too many wait already.
                let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
                socket.connect(&SockAddr::unix(path)?)?;
                UnixStream::from_std(socket.into()).map(Begun::Unix)
            }
        }
    }

    /// Connects and waits for it, trying each address once.
    pub async fn connect(&self) -> io::Result<Begun> {
        let TargetSpec::Tcp { .. } = self.spec else { return self.begin_connect() };
        if self.addresses.load().is_empty() {
            self.look_up().await;
        }
        let tries = self.addresses.load().len().max(1);
        let mut last = None;
        for _ in 0..tries {
            let Begun::Tcp(stream) = self.begin_connect()? else { continue };
            let outcome = match stream.writable().await.and_then(|()| stream.take_error()) {
                Ok(None) => return Ok(Begun::Tcp(stream)),
                Ok(Some(error)) | Err(error) => error,
            };
            self.failed();
            last = Some(outcome);
        }
        Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    }

    /// The address tried last does not answer: the next one's turn, and a look whether the name still means these.
    pub fn failed(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
        self.look_again.notify_one();
    }

    /// Remembers as which address the target sees us.
    pub fn note_seen_as(&self, address: IpAddr) {
        if self.seen_as.load().as_deref() != Some(&address) {
            self.seen_as.store(Some(Arc::new(address)));
        }
    }

    /// As which address the target sees us.
    pub fn seen_as(&self) -> IpAddr {
        self.seen_as.load().as_deref().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Keeps the addresses fresh; runs for ever. Nothing to do for literal addresses and unix sockets.
    pub async fn keep_fresh(&self) {
        let by_name = matches!(&self.spec, TargetSpec::Tcp { host, .. } if host.parse::<IpAddr>().is_err());
        if !by_name {
            return std::future::pending().await;
        }
        loop {
            let _ = tokio::time::timeout(RESOLVE_EVERY, self.look_again.notified()).await;
            self.look_up().await;
            tokio::time::sleep(RESOLVE_AT_MOST_EVERY).await;
        }
    }

    pub(crate) async fn look_up(&self) {
        let TargetSpec::Tcp { host, port } = &self.spec else { return };
        match tokio::net::lookup_host((host.as_str(), *port)).await {
            Ok(found) => {
                let found: Vec<_> = found.collect();
                if !found.is_empty() && **self.addresses.load() != found {
                    tracing::debug!(target = %self.spec, addresses = ?found, "target resolved");
                    self.addresses.store(Arc::new(found));
                    self.turn.store(0, Ordering::Relaxed);
                }
            }
            // The last known addresses are better than none.
            Err(error) => tracing::warn!(target = %self.spec, %error, "the target's name does not resolve"),
        }
    }
}

fn begin_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    TcpStream::from_std(socket.into())
}

/// The same on every Linux.
const EINPROGRESS: i32 = 115;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for text in ["localhost:8123", "127.0.0.1:1", "[::1]:8123", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<TargetSpec>().unwrap().to_string(), text);
        }
        for text in [
            "localhost",
            "localhost:",
            "localhost:0",
            "::1:80",
            "[::1:80",
            ":80",
            "a b:1",
            "unix:",
            "a:65536",
        ] {
            assert!(text.parse::<TargetSpec>().is_err(), "{text}");
        }
    }

    async fn target_of(addresses: &[SocketAddr]) -> Arc<Target> {
        let target = Target::resolve("127.0.0.1:1".parse().unwrap()).await;
        target.addresses.store(Arc::new(addresses.to_vec()));
        target
    }

    #[tokio::test]
    async fn a_begun_connection_can_be_used_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::resolve(listener.local_addr().unwrap().to_string().parse().unwrap()).await;
        let Begun::Tcp(mut stream) = target.begin_connect().unwrap() else { panic!("not TCP") };
        assert!(stream.nodelay().unwrap());
        let server = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut word = [0; 5];
            peer.read_exact(&mut word).await.unwrap();
            peer.write_all(&word).await.unwrap();
        });
        stream.write_all(b"hello").await.unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hello");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_begun_connection_that_is_refused_fails_on_use() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let target = target_of(&[closed]).await;
        if let Ok(Begun::Tcp(mut stream)) = target.begin_connect() {
            let mut byte = [0];
            assert!(stream.read_exact(&mut byte).await.is_err());
        }
    }

    #[tokio::test]
    async fn connecting_goes_on_to_the_next_address() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let target = target_of(&[closed, open]).await;
        let Begun::Tcp(stream) = target.connect().await.unwrap() else { panic!("not TCP") };
        assert_eq!(stream.peer_addr().unwrap(), open);
        assert_eq!(target.address(), Some(open), "it stays with what answers");
        target_of(&[closed]).await.connect().await.expect_err("nobody listens there");
    }

    #[tokio::test]
    async fn a_unix_socket_is_a_target() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("instance.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let target = Target::resolve(format!("unix:{}", path.display()).parse().unwrap()).await;
        let begun = target.begin_connect().unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"x").await.unwrap();
        let Begun::Unix(mut stream) = begun else { panic!("not a unix socket") };
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"x");
    }
}
