//! A folder, an `up` that runs, and visitors.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use latchkey_agent::identity::hex;
use rustix::process::{Pid, Signal, kill_process};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Nothing takes longer.
pub const LONG: Duration = Duration::from_secs(30);

pub fn latchkey(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_latchkey")).args(args).env_clear().output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of manifests with its state beside it.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("manifests")).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn manifests(&self) -> String {
        self.path("manifests").to_str().unwrap().to_owned()
    }

    pub fn state(&self) -> String {
        self.path("state").to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, manifest: &str) {
        std::fs::write(self.path("manifests").join(name), manifest).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path("manifests").join(name)).unwrap();
    }
}

/// `default/<name>`, served by the built-in page unless said otherwise.
pub fn instance(name: &str, target: Option<&str>, spec: &str) -> String {
    let annotations = target.map_or_else(String::new, |target| {
        format!("  annotations:\n    latchkey.dev/target: \"{target}\"\n")
    });
    format!(
        "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata:\n  name: {name}\n{annotations}spec:\n{spec}"
    )
}

pub fn page(name: &str) -> String {
    instance(name, Some("page"), &format!("  enabled: true\n  hostname: {name}\n"))
}

/// A running `latchkey up -o json`.
pub struct Up {
    child: Child,
    lines: Receiver<String>,
    pub told: Vec<Value>,
    stderr: Arc<Mutex<String>>,
    pub port: u16,
}

impl Up {
    pub fn start(place: &Place) -> Self {
        Self::start_on(place, 0, &[])
    }

    pub fn start_on(place: &Place, port: u16, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_latchkey"))
            .args(["up", &place.manifests(), "--state", &place.state(), "-o", "json"])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--log", "info"])
            .args(more)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (kept, err) = (stderr.clone(), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut up = Self { child, lines, told: Vec::new(), stderr, port: 0 };
        let listening = up.until("it listens", |told| told["event"] == "listening");
        let address: SocketAddr = listening["listen"][0].as_str().unwrap().parse().unwrap();
        up.port = address.port();
        up
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits for a line that passes the test; lines told before do not count.
    pub fn until(&mut self, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LONG;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let value: Value = serde_json::from_str(&line).unwrap();
                    self.told.push(value.clone());
                    if test(&value) {
                        return value;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!(
                    "waited in vain until {what}; it told {:#?} and said\n{}",
                    self.told.last(),
                    self.stderr()
                ),
            }
        }
    }

    /// Waits until an instance is ready and its certificate is known.
    pub fn ready(&mut self, instance: &str) -> Value {
        self.until(&format!("{instance} is ready"), |told| {
            told["instance"] == instance
                && told["connected"] == true
                && is_ready(told)
                && !fingerprint(told).is_empty()
        })
    }

    /// Waits for words on standard error.
    pub fn complains(&self, words: &str) -> String {
        let end = Instant::now() + LONG;
        while Instant::now() < end {
            let said = self.stderr();
            if said.contains(words) {
                return said;
            }
            wait_a_little();
        }
        panic!("waited in vain for {words:?}; it said\n{}", self.stderr());
    }

    /// Told to end, it ends in peace.
    pub fn stop(mut self) {
        self.signal();
        let status = self.ended();
        assert!(status.success(), "{status}: {}", self.stderr());
    }

    /// Tells it to end.
    pub fn signal(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    pub fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not end: {}", self.stderr());
            wait_a_little();
        }
    }

    pub fn visit(&self, host: &str) -> Result<Visit, Refused> {
        visit(self.port, host)
    }

    /// Visits until it turns out as wanted.
    pub fn visit_until(&self, host: &str, what: &str, test: impl Fn(&Result<Visit, Refused>) -> bool) {
        let end = Instant::now() + LONG;
        loop {
            let visited = self.visit(host);
            if test(&visited) {
                return;
            }
            assert!(Instant::now() < end, "waited in vain until {what}: {visited:?}\n{}", self.stderr());
            wait_a_little();
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.stderr());
        }
    }
}

/// Between two looks at something that tells of no event.
pub fn wait_a_little() {
    #[expect(clippy::disallowed_methods, reason = "a test without a reactor")]
    std::thread::sleep(Duration::from_millis(5));
}

pub fn is_ready(row: &Value) -> bool {
    let conditions = row["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|each| each["type"] == "Ready" && each["status"] == "True")
}

pub fn fingerprint(row: &Value) -> String {
    row["status"]["certificate"]["fingerprintSha256"].as_str().unwrap_or_default().to_owned()
}

/// What a visitor saw.
#[derive(Debug)]
pub struct Visit {
    pub fingerprint: String,
    pub body: String,
}

/// Why a visitor saw nothing.
#[derive(Debug)]
pub enum Refused {
    Alert(AlertDescription),
    #[expect(dead_code, reason = "for the message of a failed expectation")]
    Other(std::io::Error),
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(*alert),
            _ => Self::Other(error),
        }
    }
}

pub fn is_unknown(visited: &Result<Visit, Refused>) -> bool {
    matches!(visited, Err(Refused::Alert(AlertDescription::UnrecognisedName)))
}

/// A page over a new TLS connection, whoever's certificate it is.
pub fn visit(port: u16, host: &str) -> Result<Visit, Refused> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    tcp.set_read_timeout(Some(LONG))?;
    let mut stream = StreamOwned::new(tls, tcp);
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n")?;
    let mut body = String::new();
    stream.read_to_string(&mut body)?;
    let shown = stream.conn.peer_certificates().unwrap()[0].clone();
    Ok(Visit { fingerprint: hex(&Sha256::digest(&shown)), body })
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What `latchkey status` says, and its exit code.
pub fn status(place: &Place, form: &str) -> (Option<i32>, String, String) {
    let output = latchkey(&["status", &place.manifests(), "--state", &place.state(), "-o", form]);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A server that answers one line to every request.
pub fn origin(words: &'static str) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(stream, words));
        }
    });
    address
}

fn answer(mut stream: TcpStream, words: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.extend_from_slice(&byte),
            _ => return,
        }
    }
    let length = words.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{words}");
}

/// Is there a file only its owner can read?
pub fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode().trailing_zeros() >= 6
}
