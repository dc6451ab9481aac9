//! The command line. Every option can also come from the environment (`LATCHKEY_...`); secrets come from files
//! alone, so that neither a process list nor an inspected container shows them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::target::TargetSpec;

const EXAMPLES: &str = "\
Examples:
  Join an installation, end TLS here and forward to Home Assistant:
    latchkey-agent --join bundle.json --state /var/lib/latchkey-agent --target 127.0.0.1:8123 \\
        --product-version-file /config/.HA_VERSION

  The instance speaks TLS itself; tell it each visitor's address by a PROXY v2 header:
    latchkey-agent --join bundle.json --mode passthrough --target 127.0.0.1:443 --send-proxy v2

  A stock SniTun server, with a session its issuer handed out:
    latchkey-agent --server tunnel.example.com:443 --session session.json --mode passthrough --target 127.0.0.1:443

  What to compare with what the browser shows, and what to put into the instance's agentKeys:
    latchkey-agent fingerprint --state /var/lib/latchkey-agent
    latchkey-agent key --state /var/lib/latchkey-agent";

/// Keeps a tunnel to a proxy up and hands each visitor to the instance beside it.
#[derive(Debug, Parser)]
#[command(name = "latchkey-agent", version, about, after_help = EXAMPLES, subcommand_negates_reqs = true)]
#[command(group = ArgGroup::new("way").required(true).args(["join", "session"]))]
pub struct Settings {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where and how to connect.
    #[command(flatten)]
    pub connect: Connect,
    /// What becomes of a visitor.
    #[command(flatten)]
    pub visitors: Visitors,
    /// The certificate shown to visitors.
    #[command(flatten)]
    pub certificate: CertificateArgs,
    /// The product's version.
    #[command(flatten)]
    pub product: Product,
    /// Limits.
    #[command(flatten)]
    pub limits: Limits,
    /// How the process itself behaves.
    #[command(flatten)]
    pub process: Process,
}

/// Things to do other than run.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print the fingerprint, names and expiry of the certificate that visitors see
    Fingerprint,
    /// Print the hash of this agent's public key, to be put into the instance's agentKeys (makes the key if there is none)
    Key,
}

/// Where and how to connect.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connecting")]
pub struct Connect {
    /// Bundle with server, pinned CA and, once, a join token: sessions come from the session API
    #[arg(long, value_name = "FILE", env = "LATCHKEY_JOIN", conflicts_with_all = ["session", "server"])]
    pub join: Option<PathBuf>,
    /// A SniTun server to connect to
    #[arg(long, value_name = "HOST:PORT", env = "LATCHKEY_SERVER", requires = "session")]
    pub server: Option<String>,
    /// JSON with token, `aes_key`, `aes_iv`, `protocol_version` (what the server speaks) and cipher, as an issuer hands it
    /// out; read again before each reconnect
    #[arg(long, value_name = "FILE", env = "LATCHKEY_SESSION", requires = "server")]
    pub session: Option<PathBuf>,
    /// Folder for the agent's key and its self-signed certificate; must survive restarts
    #[arg(
        long,
        value_name = "DIR",
        env = "LATCHKEY_STATE",
        default_value = "/var/lib/latchkey-agent",
        global = true
    )]
    pub state: PathBuf,
}

/// Where TLS ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// In the instance: bytes are handed over as they come
    Passthrough,
    /// In the agent: the instance gets plain HTTP
    Terminate,
}

/// A header in front of a visitor's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SendProxy {
    /// PROXY protocol, version 2 (binary)
    V2,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Switch {
    On,
    Off,
}

/// What becomes of a visitor.
#[derive(Debug, Args)]
#[command(next_help_heading = "Visitors")]
pub struct Visitors {
    /// Where TLS ends
    #[arg(long, value_enum, env = "LATCHKEY_MODE", default_value = "terminate")]
    pub mode: Mode,
    /// The instance: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`
    #[arg(long, value_name = "HOST:PORT", env = "LATCHKEY_TARGET", required = true)]
    pub target: Option<TargetSpec>,
    /// Passthrough: put a header with the visitor's address in front of its bytes
    #[arg(long, value_enum, value_name = "VERSION", env = "LATCHKEY_SEND_PROXY")]
    pub send_proxy: Option<SendProxy>,
    /// Terminate: set X-Forwarded-For, -Proto and -Host (what the visitor sent under these names is dropped either way)
    #[arg(long, value_enum, env = "LATCHKEY_FORWARDED_HEADERS", default_value = "on")]
    pub forwarded_headers: Switch,
    /// Terminate: a hostname of the instance, where no session API tells them; may be repeated
    #[arg(long = "hostname", value_name = "NAME", env = "LATCHKEY_HOSTNAMES", value_delimiter = ',')]
    pub hostnames: Vec<String>,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CertificateKind {
    /// Made here and kept in the state folder; visitors see a warning and compare the fingerprint
    SelfSigned,
    /// Read from --cert and --key, and again when they change
    Files,
}

/// The certificate shown to visitors.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Certificate (terminate)")]
pub struct CertificateArgs {
    /// Where the certificate comes from [default: files when --cert is given, else self-signed]
    #[arg(long = "certificate", value_enum, env = "LATCHKEY_CERTIFICATE", global = true)]
    pub kind: Option<CertificateKind>,
    /// PEM file with the certificate chain, the instance's own first
    #[arg(long, value_name = "FILE", env = "LATCHKEY_CERT", requires = "key", global = true)]
    pub cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE", env = "LATCHKEY_KEY", requires = "cert", global = true)]
    pub key: Option<PathBuf>,
}

/// The product and its version, as reported to the session API.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Product version (reported with --join)")]
#[command(group = ArgGroup::new("version_source").args([
    "product_version", "product_version_file", "product_version_url", "product_version_env",
]))]
pub struct Product {
    /// What runs behind the target
    #[arg(long, value_name = "NAME", env = "LATCHKEY_PRODUCT")]
    pub product: Option<String>,
    /// Its version, as text
    #[arg(long, value_name = "TEXT", env = "LATCHKEY_PRODUCT_VERSION")]
    pub product_version: Option<String>,
    /// File that holds its version, such as `/config/.HA_VERSION`
    #[arg(long, value_name = "FILE", env = "LATCHKEY_PRODUCT_VERSION_FILE")]
    pub product_version_file: Option<PathBuf>,
    /// Address (http) that answers with its version
    #[arg(long, value_name = "URL", env = "LATCHKEY_PRODUCT_VERSION_URL")]
    pub product_version_url: Option<String>,
    /// Name of the environment variable that holds its version
    #[arg(long, value_name = "NAME", env = "LATCHKEY_PRODUCT_VERSION_ENV")]
    pub product_version_env: Option<String>,
    /// With --product-version-url: where in the JSON answer it stands, such as /version
    #[arg(
        long,
        value_name = "POINTER",
        env = "LATCHKEY_PRODUCT_VERSION_POINTER",
        requires = "product_version_url"
    )]
    pub product_version_pointer: Option<String>,
    /// How often file or address is read again
    #[arg(long, value_name = "SECONDS", env = "LATCHKEY_PRODUCT_VERSION_INTERVAL", default_value = "60", value_parser = seconds)]
    pub product_version_interval: Duration,
}

/// Limits; each has a safe default.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Visitors' connections open at once; more are refused
    #[arg(long, value_name = "N", env = "LATCHKEY_MAX_CONNECTIONS", default_value = "4096")]
    pub max_connections: usize,
    /// Terminate: requests under way at once; more get 503
    #[arg(long, value_name = "N", env = "LATCHKEY_MAX_REQUESTS", default_value = "1024")]
    pub max_requests: usize,
    /// Terminate: bytes of a request's header section
    #[arg(long, value_name = "BYTES", env = "LATCHKEY_MAX_HEADER_BYTES", default_value = "65536",
          value_parser = clap::value_parser!(u32).range(8192..=1_048_576))]
    pub max_header_bytes: u32,
    /// Terminate: time for the TLS handshake, and for each request's header section
    #[arg(long, value_name = "SECONDS", env = "LATCHKEY_HEADER_TIMEOUT", default_value = "10", value_parser = seconds)]
    pub header_timeout: Duration,
    /// Terminate: time to connect to the target
    #[arg(long, value_name = "SECONDS", env = "LATCHKEY_CONNECT_TIMEOUT", default_value = "5", value_parser = seconds)]
    pub connect_timeout: Duration,
    /// Terminate: time until the target begins to answer a request
    #[arg(long, value_name = "SECONDS", env = "LATCHKEY_RESPONSE_TIMEOUT", default_value = "120", value_parser = seconds)]
    pub response_timeout: Duration,
}

impl Limits {
    /// The defaults, and what the environment says: for whoever has a command line of its own.
    pub fn from_environment() -> Result<Self, clap::Error> {
        let command = Self::augment_args(clap::Command::new("latchkey-agent").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(std::iter::empty::<&str>())?)
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

/// How the process itself behaves.
#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
pub struct Process {
    /// After SIGTERM: how long visitors may take to finish (a second SIGTERM ends at once)
    #[arg(long, value_name = "SECONDS", env = "LATCHKEY_GRACE", default_value = "20", value_parser = seconds)]
    pub grace: Duration,
    /// Serve /livez, /readyz and /metrics here
    #[arg(long, value_name = "ADDR", env = "LATCHKEY_ADMIN")]
    pub admin: Option<SocketAddr>,
    /// How logs are written
    #[arg(long, value_enum, env = "LATCHKEY_LOG_FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or rules such as info,hyper=warn
    #[arg(long, value_name = "FILTER", env = "LATCHKEY_LOG", default_value = "info", global = true)]
    pub log: String,
}

impl CertificateArgs {
    /// The kind asked for, or the one that the files given imply.
    pub fn kind(&self) -> CertificateKind {
        self.kind.unwrap_or(if self.cert.is_some() {
            CertificateKind::Files
        } else {
            CertificateKind::SelfSigned
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is not a time that can be waited"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Settings, clap::Error> {
        Settings::try_parse_from(std::iter::once("latchkey-agent").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Settings::command().debug_assert();
    }

    #[test]
    fn a_stock_server_needs_server_and_session() {
        let ok = parse("--server a:1 --session f --mode passthrough --target 127.0.0.1:8123").unwrap();
        assert_eq!(ok.visitors.mode, Mode::Passthrough);
        assert_eq!(ok.process.grace, Duration::from_secs(20));
        assert_eq!(Limits::from_environment().unwrap().max_requests, ok.limits.max_requests);
        assert!(parse("--server a:1 --target b:2").is_err());
        assert!(parse("--session f --target b:2").is_err());
        assert!(parse("--join f --server a:1 --target b:2").is_err());
        assert!(parse("--target b:2").is_err());
    }

    #[test]
    fn joining_terminates_unless_told_otherwise() {
        let ok = parse("--join bundle.json --target localhost:8123").unwrap();
        assert_eq!(ok.visitors.mode, Mode::Terminate);
        assert_eq!(ok.certificate.kind(), CertificateKind::SelfSigned);
        let files = parse("--join b --target h:1 --cert c.pem --key k.pem").unwrap();
        assert_eq!(files.certificate.kind(), CertificateKind::Files);
        assert!(parse("--join b --target h:1 --cert c.pem").is_err(), "a certificate without its key");
        assert!(parse("--join b").is_err(), "no target");
    }

    #[test]
    fn subcommands_need_no_target() {
        assert!(matches!(parse("key --state /tmp/x").unwrap().command, Some(Command::Key)));
        let printed = parse("fingerprint --cert c --key k").unwrap();
        assert!(matches!(printed.command, Some(Command::Fingerprint)));
        assert_eq!(printed.certificate.cert, Some(PathBuf::from("c")));
    }

    #[test]
    fn one_version_source_at_most() {
        let one = "--join b --target h:1 --product-version-file f";
        assert!(parse(one).is_ok());
        assert!(parse(&format!("{one} --product-version 1")).is_err());
        assert!(parse("--join b --target h:1 --product-version-pointer /v").is_err());
    }

    #[test]
    fn times_are_seconds() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert!(seconds("-1").is_err());
        assert!(seconds("soon").is_err());
        assert!(seconds("inf").is_err());
    }
}
