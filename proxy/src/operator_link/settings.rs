//! Which operator, and how it is known.

use std::{env, fmt, path::PathBuf, str::FromStr};

use clap::Args;

/// The link to an operator. All of it stands still without `--operator`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Operator")]
pub struct OperatorSettings {
    /// The operator's pods, by the name of their headless Service: every address of it is called. Routes, token keys
    /// and who may join come from there. May be given several times.
    #[arg(
        long,
        env = "LATCHKEY_OPERATOR",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        conflicts_with_all = ["routes", "fernet_keys"],
        requires = "operator_tls"
    )]
    pub operator: Vec<OperatorAddress>,

    /// Folder of what the link is secured with (link.crt, link.key, trust.crt); read again before each call.
    #[arg(long, env = "LATCHKEY_OPERATOR_TLS", value_name = "DIR", requires = "operator")]
    pub operator_tls: Option<PathBuf>,

    /// The name in the operator's certificate, if it is not the HOST of the first --operator.
    #[arg(long, env = "LATCHKEY_OPERATOR_NAME", value_name = "NAME", requires = "operator")]
    pub operator_name: Option<String>,

    /// What this replica is called; a name of link.crt, too. Without it `$POD_NAME`, else the host's name.
    #[arg(long, env = "LATCHKEY_REPLICA", value_name = "NAME", requires = "operator")]
    pub replica: Option<String>,

    /// Keeps the last good table, to serve from after a restart while no operator is there. On a memory-backed volume.
    #[arg(long, env = "LATCHKEY_TABLE_CACHE", value_name = "FILE", requires = "operator")]
    pub table_cache: Option<PathBuf>,
}

impl OperatorSettings {
    /// The replica's name: as set, else the pod's, else the host's.
    pub fn replica(&self) -> Option<String> {
        let named = self.replica.clone().or_else(|| env::var("POD_NAME").ok());
        let host = || nix::unistd::gethostname().ok()?.into_string().ok();
        named.filter(|name| !name.is_empty()).or_else(host)
    }
}

/// A name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorAddress {
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for OperatorAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "has to be HOST:PORT, like latchkey-operator.latchkey.svc:9443";
        let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = in_brackets.unwrap_or(host);
        // Without brackets the port of an IPv6 address is anybody's guess.
        if host.is_empty() || (in_brackets.is_none() && host.contains(':')) {
            return Err(wrong);
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| wrong)? })
    }
}

impl fmt::Display for OperatorAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(formatter, "[{}]:{}", self.host, self.port);
        }
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host) in
            [("operator.svc:9443", "operator.svc"), ("[::1]:9443", "::1"), ("127.0.0.1:9443", "127.0.0.1")]
        {
            let address: OperatorAddress = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, 9443));
            assert_eq!(address.to_string(), text);
        }
        for bad in ["operator", "::1:9443", ":1", "operator:70000", "[]:1"] {
            assert!(bad.parse::<OperatorAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_operator_needs_its_folder_and_excludes_files_that_say_the_same() {
        let parse = |args: &[&str]| Settings::try_parse_from([&["latchkey-proxy"], args].concat());
        let operator = ["--operator", "operator:9443", "--operator-tls", "/tls"];
        let settings = parse(&[&operator[..], &["--replica", "proxy-3"]].concat()).unwrap();
        assert_eq!(settings.operator.replica().as_deref(), Some("proxy-3"));
        assert!(parse(&operator).unwrap().operator.replica().is_some(), "the host has a name");
        for bad in [
            &operator[..2],
            &["--operator-tls", "/tls"],
            &[&operator[..], &["--routes", "routes.yaml"]].concat(),
            &[&operator[..], &["--fernet-keys", "keys"]].concat(),
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
