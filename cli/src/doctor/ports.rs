//! Can the proxy's ports be reached from here?

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::check::Check;

const PER_ADDRESS: Duration = Duration::from_secs(4);

/// The port for visitors and agents, at every address.
pub async fn main_port(addresses: &[SocketAddr]) -> Vec<Check> {
    let mut checks = Vec::new();
    for address in addresses {
        let name = format!("port {}", address.port());
        checks.push(match knock(*address).await {
            Ok(()) => Check::ok(&name, format!("{address} is open")),
            Err(error) if no_route(&error) && address.is_ipv6() => {
                Check::skipped(&name, format!("{address}: this machine has no IPv6"))
            }
            Err(error) => Check::fail(
                &name,
                format!("{address}: {error}"),
                "Is the proxy running, and does the firewall let the port through? Where nobody listens at an \
                 address, take it out of DNS: visitors try it first.",
            ),
        });
    }
    checks
}

/// Port 80, which is a convenience.
pub async fn plain_port(addresses: &[SocketAddr]) -> Check {
    const NAME: &str = "port 80";
    let Some(address) = addresses.first() else { return Check::skipped(NAME, "there is no address to try") };
    let address = SocketAddr::new(address.ip(), 80);
    match knock(address).await {
        Ok(()) => Check::ok(NAME, format!("{address} is open")),
        Err(_) => Check::ok(
            NAME,
            format!("{address} is closed, which is fine: only who types http:// by hand would notice"),
        ),
    }
}

async fn knock(address: SocketAddr) -> io::Result<()> {
    match timeout(PER_ADDRESS, TcpStream::connect(address)).await {
        Ok(connected) => connected.map(drop),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    }
}

fn no_route(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable)
}
