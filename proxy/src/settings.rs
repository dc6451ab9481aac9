//! Everything that can be set, from the command line or the environment.

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, FromArgMatches as _, Parser};
use route_table::{Cidr, Limits as RouteLimits};
use snitun::{
    driver::TunnelSettings,
    flow_control::{Budget, Marks},
    heartbeat::HeartbeatSettings,
    multiplexer,
};

#[cfg(feature = "operator")]
use crate::operator_link::OperatorSettings;
use crate::{
    logging::LogFormat,
    visitor::clients::{ClientLimits, Rate},
};

const EXAMPLES: &str = "\
Examples:
  A drop-in SniTun server: any hostname that a valid token names is served.
    latchkey-proxy --listen 0.0.0.0:443 --fernet-keys keys.txt

  With a table of routes, the session API on connect.ui.example.com, and metrics:
    latchkey-proxy --listen '[::]:443' --fernet-keys keys.txt --routes routes.yaml \\
      --api-tls /var/lib/latchkey/api --admin 127.0.0.1:9100

  In a cluster, with routes and keys from the operator:
    latchkey-proxy --listen '[::]:8443' --operator latchkey-operator.latchkey.svc:9443 --operator-tls /link \\
      --api-tls /session-tls --table-cache /memory/table --admin 0.0.0.0:9100

  Behind a load balancer that sends PROXY headers:
    latchkey-proxy --listen 10.0.0.5:8443 --fernet-keys keys.txt --trusted-proxies 10.0.0.0/24

  A Fernet key: python3 -c 'import base64,os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'";

/// The proxy: visitors and tunnels on one port. Reads the name in a visitor's TLS hello and passes the
/// bytes on; holds no key of any instance.
#[derive(Clone, Debug, Parser)]
#[command(name = "latchkey-proxy", version, about, after_help = EXAMPLES)]
pub struct Settings {
    /// Where visitors and agents arrive; may be given several times.
    #[arg(
        long,
        env = "LATCHKEY_LISTEN",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "[::]:8443"
    )]
    pub listen: Vec<SocketAddr>,

    /// The keys that seal tokens, one a line, the newest first; read again when it changes.
    #[arg(long, env = "LATCHKEY_FERNET_KEYS", value_name = "FILE")]
    pub fernet_keys: Option<PathBuf>,

    /// The routes, YAML or JSON; read again when it changes. Without it every valid token is served.
    #[arg(long, env = "LATCHKEY_ROUTES", value_name = "FILE")]
    pub routes: Option<PathBuf>,

    /// The installation's domain, if not named in the routes: its `connect.` is the session API.
    #[arg(long, env = "LATCHKEY_DOMAIN", value_name = "NAME")]
    pub domain: Option<String>,

    /// Folder of the session API's certificate (tls.crt, tls.key, ca.crt); made when it is empty.
    #[arg(long, env = "LATCHKEY_API_TLS", value_name = "DIR", default_value = "latchkey-api-tls")]
    pub api_tls: PathBuf,

    /// The address that agents are told to open their tunnel to; without it, the one they asked.
    #[arg(long, env = "LATCHKEY_TUNNEL_ADDRESS", value_name = "HOST:PORT")]
    pub tunnel_address: Option<String>,

    /// Where /livez, /readyz, /metrics and /tunnels are served. Not for the public.
    #[arg(long, env = "LATCHKEY_ADMIN", value_name = "ADDR")]
    pub admin: Option<SocketAddr>,

    /// How long after SIGTERM visitors may finish.
    #[arg(long, env = "LATCHKEY_GRACE", value_name = "SECONDS", default_value_t = 60)]
    pub grace: u64,

    /// Threads that move bytes; 0: one for each core.
    #[arg(long, env = "LATCHKEY_DATA_THREADS", value_name = "N", default_value_t = 0)]
    pub data_threads: usize,

    /// How log lines look; what is logged is `RUST_LOG`'s.
    #[arg(long, env = "LATCHKEY_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// The operator.
    #[cfg(feature = "operator")]
    #[command(flatten)]
    pub operator: OperatorSettings,

    /// The limits.
    #[command(flatten)]
    pub limits: Limits,
}

impl Settings {
    /// Is there anything that says who is served?
    pub fn has_a_source(&self) -> bool {
        #[cfg(feature = "operator")]
        if !self.operator.operator.is_empty() {
            return true;
        }
        self.fernet_keys.is_some() || self.routes.is_some()
    }

    /// The threads asked for.
    pub fn data_threads(&self) -> usize {
        if self.data_threads > 0 {
            return self.data_threads;
        }
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    /// How long visitors may finish.
    pub const fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }
}

/// What anybody may cost. Times are in seconds, sizes in bytes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits (times in seconds, sizes in bytes)")]
pub struct Limits {
    /// Networks whose PROXY headers (v1, v2) are believed.
    #[arg(long, env = "LATCHKEY_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',')]
    pub trusted_proxies: Vec<Cidr>,

    /// Networks whose addresses have no limits of their own: whoever comes from there speaks for many.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "127.0.0.0/8,::1/128")]
    pub unlimited_clients: Vec<Cidr>,

    /// Connections of one address (IPv4, or IPv6 /64) at a time.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub client_connections: u32,

    /// New connections of one address in a minute.
    #[arg(long, value_name = "N", default_value_t = 1200)]
    pub client_connections_per_minute: u32,

    /// Addresses whose rates are remembered at once.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub max_clients: usize,

    /// Visitors of one hostname at a time, where no route says.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub host_connections: u32,

    /// Connections that have not shown what they are, and tunnels being opened, at a time.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub max_handshakes: u32,

    /// A ClientHello, record headers included.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 10)]
    pub max_hello: usize,

    /// Time for a ClientHello, or for the first bytes of a token.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub hello_time: u64,

    /// Time for the rest of a token.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub token_time: u64,

    /// Time for an agent to answer its challenge.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub challenge_time: u64,

    /// How long an agent that holds an instance has to show that it lives when another one wants it.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub conflict_time: u64,

    /// How long a visitor waits for a tunnel that was there lately.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub park_time: u64,

    /// How long ago "lately" is.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub park_window: u64,

    /// Visitors that wait at a time, in all; each with its hello in memory.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub max_parked: u32,

    /// Visitors that wait at a time for one instance.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_parked_per_instance: u32,

    /// Visitors that wait at a time from one address.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub max_parked_per_client: u32,

    /// A visitor's connection on which nothing moves is closed after this.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub idle_time: u64,

    /// Time between two pings to an agent.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub heartbeat: u64,

    /// How long an agent may take to answer one.
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    pub heartbeat_patience: u64,

    /// Visitors in one tunnel at a time.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub tunnel_channels: usize,

    /// What an agent may have on its way to us: the receive window of a tunnel. It bounds what still
    /// comes after a pause, and, divided by the round trip, how fast one tunnel can be. 0: the kernel's.
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 20)]
    pub tunnel_window: usize,

    /// What may wait for one slow visitor before the agent is asked to pause.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub channel_pause: usize,

    /// What may wait for one slow visitor before it is cut off.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub channel_buffer: usize,

    /// What may wait for the slow visitors of one tunnel.
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 20)]
    pub tunnel_buffer: usize,

    /// What may wait for slow visitors in the whole process.
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 20)]
    pub process_buffer: usize,

    /// Made once from `process_buffer` and shared by all tunnels.
    #[arg(skip)]
    budget: Option<Budget>,
}

impl Limits {
    /// The defaults, and what the environment says: for whoever has a command line of its own.
    pub fn from_environment() -> Result<Self, clap::Error> {
        let command = Self::augment_args(clap::Command::new("latchkey-proxy").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(std::iter::empty::<&str>())?)
    }

    /// Makes the budget that all tunnels share. Call it once, before the first tunnel.
    #[must_use]
    pub fn with_budget(mut self) -> Self {
        self.budget = Some(Budget::new(self.process_buffer));
        self
    }

    /// What waits for slow visitors now.
    pub fn bytes_waiting(&self) -> usize {
        self.budget.as_ref().map_or(0, Budget::used)
    }

    /// Is it one of the load balancers before us?
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// Does the address speak for many?
    pub fn is_unlimited(&self, address: IpAddr) -> bool {
        self.unlimited_clients.iter().any(|network| network.contains(address))
    }

    /// The limits of one address.
    pub fn client(&self) -> ClientLimits {
        let per_minute = self.client_connections_per_minute;
        ClientLimits {
            connections: self.client_connections,
            // Half a minute's worth at once: a page with many parts, a household behind one address.
            rate: Rate { per_minute, burst: per_minute.div_ceil(2) },
        }
    }

    /// How many visitors of one address may wait; how fast they come is limited elsewhere.
    pub fn parked_client(&self) -> ClientLimits {
        let rate = Rate { per_minute: u32::MAX, burst: u32::MAX };
        ClientLimits { connections: self.max_parked_per_client, rate }
    }

    /// The limits of a hostname that no route speaks of.
    pub fn without_table(&self) -> RouteLimits {
        RouteLimits {
            max_connections: self.host_connections,
            new_connections_per_minute_per_client: self.client_connections_per_minute,
        }
    }

    /// The settings of a tunnel.
    pub fn tunnel(&self) -> TunnelSettings {
        TunnelSettings {
            protocol: multiplexer::Settings {
                marks: Marks {
                    pause_at: self.channel_pause,
                    resume_at: self.channel_pause / 4,
                    reset_at: self.channel_buffer,
                    tunnel_reset_at: self.tunnel_buffer,
                },
                budget: self.budget.clone().unwrap_or_default(),
                max_channels: self.tunnel_channels,
                heartbeat: HeartbeatSettings {
                    every: Duration::from_secs(self.heartbeat.max(1)),
                    only_when_silent: false,
                    patience: Duration::from_secs(self.heartbeat_patience.max(1)),
                },
                ..multiplexer::Settings::default()
            },
            idle: Duration::from_secs(self.idle_time.max(1)),
            ..TunnelSettings::default()
        }
    }

    /// Time for a hello.
    pub const fn hello(&self) -> Duration {
        Duration::from_secs(self.hello_time)
    }

    /// Time for a token.
    pub const fn token(&self) -> Duration {
        Duration::from_secs(self.token_time)
    }

    /// Time for the answer to a challenge.
    pub const fn challenge(&self) -> Duration {
        Duration::from_secs(self.challenge_time)
    }

    /// Time for a holder to show that it lives.
    pub const fn conflict(&self) -> Duration {
        Duration::from_secs(self.conflict_time)
    }

    /// How long a visitor waits.
    pub const fn park(&self) -> Duration {
        Duration::from_secs(self.park_time)
    }

    /// How long ago "lately" is.
    pub const fn held_lately(&self) -> Duration {
        Duration::from_secs(self.park_window)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_defaults_hold_together() {
        Settings::command().debug_assert();
        let settings = Settings::parse_from(["latchkey-proxy"]);
        let marks = settings.limits.tunnel().protocol.marks;
        assert!(marks.resume_at < marks.pause_at && marks.pause_at < marks.reset_at);
        assert!(marks.reset_at <= marks.tunnel_reset_at);
        assert!(settings.limits.is_unlimited("127.0.0.9".parse().unwrap()));
        assert!(!settings.limits.is_unlimited("192.0.2.1".parse().unwrap()));
        let alone = Limits::from_environment().unwrap();
        assert_eq!(alone.max_hello, settings.limits.max_hello);
    }
}
