//! Ports for programs that are told theirs.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ClusterError;

/// Below those from which connections take theirs (32768 and up, save where somebody changed it): there a port that was free a
/// moment ago is soon the end of somebody's connection, or another listener's.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// Ports of 127.0.0.1 that are free for TCP and UDP. This process gives each out once.
pub fn free_ports<const N: usize>() -> Result<[u16; N], ClusterError> {
    let mut ports = [0; N];
    for port in &mut ports {
        *port = (FIRST..LAST)
            .find_map(|_| Some(next()).filter(|port| is_free(*port)))
            .ok_or_else(|| ClusterError::io("a free port")(std::io::ErrorKind::AddrInUse.into()))?;
    }
    Ok(ports)
}

/// One after the other. Other processes of tests begin elsewhere.
fn next() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    static BEGIN: OnceLock<u32> = OnceLock::new();
    let begin = BEGIN.get_or_init(|| std::process::id().wrapping_mul(7919));
    let turn = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
    FIRST + u16::try_from(turn % u32::from(LAST - FIRST)).unwrap_or_default()
}

fn is_free(port: u16) -> bool {
    let here = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(here).is_ok() && UdpSocket::bind(here).is_ok()
}
