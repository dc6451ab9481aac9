//! The proxy as a process, with its files in a folder that goes with it.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use snitun::token::FernetKeys;
use tempfile::TempDir;

use super::{
    get,
    operator::{OPERATOR_NAME, Operator, REPLICA},
    until,
};

/// A running program that ends with its owner. Its log is shown when the test fails.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(program: impl AsRef<Path>, args: &[String], log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let child = Command::new(program.as_ref())
            .args(args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Bytes of it that are in memory now.
    pub fn resident(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let mut status = None;
        until("the process ends", || {
            status = child.try_wait().unwrap();
            std::future::ready(status.is_some())
        })
        .await;
        status.unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The address that a line of its log has, once there is one.
    async fn said(&mut self, message: &str) -> SocketAddr {
        until(&format!("it says {message}"), || {
            assert!(self.is_running(), "it ended: {}", self.log());
            std::future::ready(said_address(&self.log(), message).is_some())
        })
        .await;
        said_address(&self.log(), message).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// What proxies on one port have in common.
#[derive(Debug)]
struct Place {
    folder: TempDir,
    source: Source,
    args: Vec<String>,
    /// File descriptors it is started with.
    descriptors: u32,
    started: AtomicU32,
}

impl Place {
    fn new(source: Source, args: &[&str], descriptors: u32) -> Arc<Self> {
        // The visitors and agents of all tests are in this process.
        byte_relay::descriptors::take_all();
        Arc::new(Self {
            folder: tempfile::tempdir().unwrap(),
            source,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            descriptors,
            started: AtomicU32::new(0),
        })
    }

    async fn start(self: &Arc<Self>, address: &str) -> Starting {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let start = format!("ulimit -S -n {} && exec \"$0\" \"$@\"", self.descriptors);
        let mut args = vec!["-c".to_owned(), start, env!("CARGO_BIN_EXE_latchkey-proxy").to_owned()];
        args.extend(
            ["--listen", address, "--admin", "127.0.0.1:0", "--data-threads", "1", "--log-format", "json"]
                .map(str::to_owned),
        );
        args.extend(["--api-tls".to_owned(), path("api-tls")]);
        let fernet_keys = ["--fernet-keys".to_owned(), path("fernet.keys")];
        match self.source {
            Source::Nowhere => args.extend(fernet_keys),
            Source::File => {
                args.extend(fernet_keys);
                args.extend(["--routes".to_owned(), path("routes.yaml")]);
            }
            Source::Operator(operator) => {
                args.extend(["--operator".to_owned(), operator.to_string()]);
                args.extend(
                    ["--operator-name", OPERATOR_NAME, "--replica", REPLICA, "--domain", "ui.example.com"]
                        .map(str::to_owned),
                );
                args.extend(["--operator-tls".to_owned(), path("link")]);
                args.extend(["--table-cache".to_owned(), path("table")]);
            }
        }
        args.extend(self.args.iter().cloned());
        let log = self.folder.path().join(format!("proxy-{number}.log"));
        let mut process = Process::start("/bin/sh", &args, log);
        let admin = process.said("admin listener").await;
        Starting { process, admin, place: self.clone() }
    }
}

/// Where its routes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Nowhere,
    File,
    Operator(SocketAddr),
}

/// A proxy that may not listen yet.
#[derive(Debug)]
pub struct Starting {
    process: Process,
    /// Where it shows itself.
    pub admin: SocketAddr,
    place: Arc<Place>,
}

impl Starting {
    /// Waits until visitors and agents may come.
    pub async fn listens(self) -> Proxy {
        let Self { mut process, admin, place } = self;
        let address = process.said("listening").await;
        Proxy { process, address, admin, place }
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// It does not listen.
    pub fn is_waiting(&mut self) -> bool {
        self.process.is_running() && said_address(&self.process.log(), "listening").is_none()
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    pub process: Process,
    /// Where visitors and agents arrive.
    pub address: SocketAddr,
    /// Where it shows itself.
    pub admin: SocketAddr,
    place: Arc<Place>,
}

/// The key that seals the tokens of every test.
pub fn fernet_keys() -> FernetKeys {
    FernetKeys::from_lines(&key_line()).unwrap()
}

fn key_line() -> String {
    URL_SAFE.encode([7; 32])
}

impl Proxy {
    /// A drop-in server in an environment that is stingy with file descriptors.
    pub async fn with_descriptors(descriptors: u32, args: &[&str]) -> Self {
        Self::first(None, args, descriptors).await
    }

    /// A drop-in server.
    pub async fn start(args: &[&str]) -> Self {
        Self::first(None, args, 1024).await
    }

    /// With a routes file.
    pub async fn with_routes(routes: &str, args: &[&str]) -> Self {
        Self::first(Some(routes), args, 1024).await
    }

    async fn first(routes: Option<&str>, args: &[&str], descriptors: u32) -> Self {
        let source = if routes.is_some() { Source::File } else { Source::Nowhere };
        let place = Place::new(source, args, descriptors);
        fs::write(place.folder.path().join("fernet.keys"), key_line()).unwrap();
        if let Some(routes) = routes {
            fs::write(place.folder.path().join("routes.yaml"), routes).unwrap();
        }
        place.start("127.0.0.1:0").await.listens().await
    }

    /// With an operator, and the link's files of its authority.
    pub async fn with_operator(operator: &Operator, args: &[&str]) -> Starting {
        let place = Place::new(Source::Operator(operator.address), args, 1024);
        operator.authority.write_link(&place.folder.path().join("link"));
        place.start("127.0.0.1:0").await
    }

    /// A new process on the same port, with the same files.
    pub async fn successor(&self) -> Self {
        self.place.start(&self.address.to_string()).await.listens().await
    }

    /// A file of its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.folder.path().join(name)
    }

    /// Puts another routes file in the place of the one there is.
    pub fn set_routes(&self, text: &str) {
        let new = self.path("routes.new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, self.path("routes.yaml")).unwrap();
    }

    /// A figure of /metrics.
    pub async fn metric(&self, name: &str) -> f64 {
        let (status, text) = get(self.admin, "/metrics").await;
        assert_eq!(status, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// Waits until a figure is this one.
    pub async fn shows(&self, name: &str, wanted: f64) {
        until(&format!("{name} {wanted}"), || async {
            (self.metric(name).await - wanted).abs() < f64::EPSILON
        })
        .await;
    }

    /// How many visitors were refused for `reason`.
    pub async fn refusals(&self, reason: &str) -> f64 {
        self.metric(&format!("latchkey_proxy_visitors_refused_total{{reason=\"{reason}\"}}")).await
    }

    /// The rows of /tunnels.
    pub async fn tunnels(&self) -> Vec<Value> {
        let (status, text) = get(self.admin, "/tunnels").await;
        assert_eq!(status, 200);
        let page: Value = serde_json::from_str(&text).unwrap();
        page["tunnels"].as_array().unwrap().clone()
    }

    /// The numbers of the sessions that hold an instance.
    pub async fn sessions_of(&self, instance: &str) -> Vec<u64> {
        let rows = self.tunnels().await;
        rows.iter()
            .filter(|row| row["instance"] == instance)
            .map(|row| row["session"].as_u64().unwrap())
            .collect()
    }

    /// Waits until these sessions hold an instance.
    pub async fn held_by(&self, instance: &str, sessions: &[u64]) {
        until(&format!("{instance} is held by {sessions:?}"), || async {
            self.sessions_of(instance).await == sessions
        })
        .await;
    }
}

/// The address in a line of the log.
fn said_address(log: &str, message: &str) -> Option<SocketAddr> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == message)
        .and_then(|line| line["address"].as_str()?.parse().ok())
}
