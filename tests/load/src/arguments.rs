//! The command line.

use std::{
    error::Error,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand};

/// Load tools for Latchkey's bench.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) tool: Tool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    /// Keep many tunnels open that carry nothing, reconnecting as the agent does; one line of JSON whenever a
    /// number changed. Ends with SIGTERM or when its standard output closes.
    IdleTunnels(IdleTunnels),
    /// Keep the tunnels of named instances open that carry nothing, asking again when they are cut or refused; one line
    /// of JSON whenever something happened. Ends with SIGTERM or when its standard output closes.
    Agents(Agents),
}

/// Options of `idle-tunnels`.
#[derive(Debug, Args)]
pub(crate) struct IdleTunnels {
    /// The proxy.
    #[arg(long)]
    pub(crate) server: SocketAddr,
    /// The proxy's Fernet keys, one a line, to make the tokens with.
    #[arg(long)]
    pub(crate) fernet_keys: PathBuf,
    /// How many tunnels; number N has the hostname `instN.<domain>`.
    #[arg(long, default_value_t = 1000)]
    pub(crate) count: usize,
    /// Where the hostnames end.
    #[arg(long, default_value = "ui.test")]
    pub(crate) domain: String,
    /// Addresses to connect from, taken in turn.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1")]
    pub(crate) sources: Vec<IpAddr>,
    /// Tunnels a second in the beginning. (Reconnects follow the agent's policy alone.)
    #[arg(long, default_value_t = 1000)]
    pub(crate) per_second: u32,
    /// Print the resident memory of this process along.
    #[arg(long)]
    pub(crate) proxy_pid: Option<u32>,
}

/// Options of `agents`.
#[derive(Debug, Args)]
pub(crate) struct Agents {
    /// The proxy.
    #[arg(long)]
    pub(crate) server: SocketAddr,
    /// The proxy's Fernet keys, one a line, to make the tokens with.
    #[arg(long)]
    pub(crate) fernet_keys: PathBuf,
    /// Who they are, one a line: `NAMESPACE/NAME HOSTNAME VERSION KEY`, the key as its SHA-256.
    #[arg(long = "agents", value_name = "FILE")]
    pub(crate) who: PathBuf,
    /// Addresses to connect from, taken in turn.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1")]
    pub(crate) sources: Vec<IpAddr>,
    /// Tunnels a second in the beginning.
    #[arg(long, default_value_t = 1000)]
    pub(crate) per_second: u32,
    /// Whoever was refused asks again after so many seconds, or up to half of that sooner.
    #[arg(long, default_value_t = 300)]
    pub(crate) ask_every: u32,
}

impl IdleTunnels {
    /// The address tunnel number `number` connects from.
    pub(crate) fn source(&self, number: usize) -> IpAddr {
        in_turn(&self.sources, number)
    }
}

impl Agents {
    /// The address agent number `number` connects from.
    pub(crate) fn source(&self, number: usize) -> IpAddr {
        in_turn(&self.sources, number)
    }
}

fn in_turn(sources: &[IpAddr], number: usize) -> IpAddr {
    let source = sources.get(number % sources.len().max(1));
    source.copied().unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Says on standard error what went wrong, causes included.
pub(crate) fn complain(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    // Nobody is left to tell when even this fails.
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
