//! Everything that can be set for the operator's process. What belongs to the installation is in its `ConfigMap`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::names::{LINK_PORT, Names};

const EXAMPLES: &str = "\
Examples:
  In a cluster, as deploy/operator.yaml runs it (namespace and identity come from the pod):
    latchkey-operator --installation default

  Beside a cluster, with the rights of a kubeconfig, for a look at what it does:
    KUBECONFIG=~/.kube/config latchkey-operator --namespace latchkey --identity me \\
      --link 127.0.0.1:8444 --admin 127.0.0.1:9101";

/// The operator: reconciles instances and version blocks, and owns the proxies.
#[derive(Clone, Debug, Parser)]
#[command(name = "latchkey-operator", version, about, after_help = EXAMPLES)]
pub struct Settings {
    /// The namespace of the operator, the proxies and everything that is theirs.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "latchkey")]
    pub namespace: String,

    /// Which installation; several may share a cluster.
    #[arg(long, env = "LATCHKEY_INSTALLATION", value_name = "NAME", default_value = "default")]
    pub installation: String,

    /// Who this process is, in the lease: unique among replicas.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: String,

    /// Where proxies attach.
    #[arg(long, env = "LATCHKEY_LINK", value_name = "ADDR", default_value_t = SocketAddr::from(([0_u16; 8], LINK_PORT)))]
    pub link: SocketAddr,

    /// Where /livez, /readyz, /metrics, /proxies and /status are served. Not for the public.
    #[arg(long, env = "LATCHKEY_ADMIN", value_name = "ADDR", default_value = "[::]:9101")]
    pub admin: SocketAddr,

    /// DNS servers that prove custom domains, `IP:PORT`; without any, those of the system.
    #[arg(long, env = "LATCHKEY_RESOLVERS", value_name = "ADDR", value_delimiter = ',')]
    pub resolvers: Vec<SocketAddr>,

    /// For how long a leader that is not heard of stays the leader, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=300))]
    pub lease: u64,

    /// Statuses written in a second, at most.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub status_writes: u32,

    /// Leave the proxies' workload (its objects and rolls) to somebody else.
    #[arg(long, env = "LATCHKEY_NO_WORKLOAD")]
    pub no_workload: bool,

    /// How log lines look.
    #[arg(long, env = "LATCHKEY_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged, e.g. `info,latchkey_operator=debug`.
    #[arg(long, env = "LATCHKEY_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// What the installation's objects are called.
    pub fn names(&self) -> Names {
        Names { namespace: self.namespace.clone(), installation: self.installation.clone() }
    }

    /// How long a lease lasts.
    pub const fn lease(&self) -> Duration {
        Duration::from_secs(self.lease)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Settings::command().debug_assert();
        let settings = Settings::try_parse_from(["latchkey-operator", "--identity", "pod-1"]).unwrap();
        assert_eq!(settings.link.port(), LINK_PORT);
        assert_eq!(settings.names().lease(), "latchkey-default-operator");
        assert!(Settings::try_parse_from(["latchkey-operator", "--identity", "x", "--lease", "1"]).is_err());
    }
}
