//! The proxy inside `up`: its port, its keys, its CA.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use board::{Board, STATUS_PATH};
use latchkey_agent::state_folder::StateFolder;
use latchkey_proxy::{
    admin::{AdminServer, AdminView, Readiness, TunnelRow},
    fernet_keys::FernetKeyRing,
    listen::listen_alone,
    metrics::Metrics,
    proxy::{ApiParts, Proxy, ProxyParts},
    routes::Live,
    session_api::{Enrolment, Heard},
    settings::Limits,
    view::View,
};
use rand::TryRng as _;
use tokio::{runtime::Handle, sync::watch};
use zeroize::Zeroizing;

use crate::{
    control::document,
    state_place::{CA_CERTIFICATE, CA_FOLDER},
};

const FERNET_KEYS: &str = "fernet.keys";

/// What the proxy of this process needs.
pub struct NetworkParts<'a> {
    /// Where the pages for whoever watches are served.
    pub admin: Option<SocketAddr>,
    /// Keys and CA are kept there.
    pub state: &'a StateFolder,
    /// The table, which names a domain already.
    pub live: &'a Arc<Live>,
    /// Where agents are told to open their tunnels, if not where they asked.
    pub tunnel_address: Option<String>,
    /// Who registers keys.
    pub enrolment: Arc<dyn Enrolment>,
    /// Hears what agents report.
    pub heard: Arc<Heard>,
    /// For the admin listener.
    pub board: watch::Receiver<Arc<Board>>,
}

impl std::fmt::Debug for NetworkParts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkParts").field("admin", &self.admin).finish_non_exhaustive()
    }
}

/// A proxy that runs, and what is known of its surroundings.
#[derive(Debug)]
pub struct Network {
    /// The proxy.
    pub proxy: Proxy,
    /// The CA of its session API, PEM.
    pub ca: Arc<str>,
    /// Where it listens, ports known.
    pub addresses: Vec<SocketAddr>,
    _admin: Option<AdminServer>,
}

/// Opens the ports: before anything is shown, since URLs carry a port.
pub fn open_ports(listen: &[SocketAddr]) -> Result<Vec<(SocketAddr, std::net::TcpListener)>, String> {
    let open = |address: &SocketAddr| {
        let opened = listen_alone(*address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        opened.map_err(|error| cannot_listen(*address, &error))
    };
    listen.iter().map(open).collect()
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has that port (another `latchkey up`?): end it, or take another one, such as --listen {}",
            SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(8443))
        ),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are for root: take a higher one, such as --listen 127.0.0.1:8443".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: 127.0.0.1 is this machine alone, 0.0.0.0 every address of it"
                .to_owned()
        }
        _ => "see --listen".to_owned(),
    };
    format!("cannot listen on {address}: {error}; {advice}")
}

/// Starts the proxy.
pub fn start(
    parts: NetworkParts<'_>,
    listeners: Vec<(SocketAddr, std::net::TcpListener)>,
) -> Result<Network, String> {
    let NetworkParts { admin, state, live, tunnel_address, enrolment, heard, board } = parts;
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let keys = fernet_keys(state)?;
    let metrics = Arc::new(Metrics::new());
    let ca_folder = state.path_of(CA_FOLDER);
    let proxy_parts = ProxyParts {
        table: Some(live.clone()),
        domain: None,
        keys: Arc::new(keys),
        api: ApiParts { tunnel_address, enrolment, reports: heard, ..ApiParts::new(ca_folder.clone()) },
        limits: Limits::from_environment().map_err(|error| said(&error))?,
        data_threads: 1,
        metrics: metrics.clone(),
    };
    let mut proxy = Proxy::start(proxy_parts, &Handle::current()).map_err(|error| said(&error))?;
    let ca = read_ca(&ca_folder)?;
    let view = View::new(proxy.door().clone());
    let admin = match admin {
        Some(address) => Some(
            AdminServer::start(address, Arc::new(Pages { view, board }), metrics)
                .map_err(|error| cannot_listen(address, &error).replace("--listen", "--admin"))?,
        ),
        None => None,
    };
    let mut addresses = Vec::new();
    for (address, listener) in listeners {
        proxy.listen(listener).map_err(|error| cannot_listen(address, &error))?;
        addresses.push(address);
    }
    Ok(Network { proxy, ca, addresses, _admin: admin })
}

fn read_ca(folder: &Path) -> Result<Arc<str>, String> {
    let ca = StateFolder::existing(folder).read(CA_CERTIFICATE).map_err(|error| error.to_string())?;
    ca.map(Arc::from).ok_or_else(|| format!("{} has no {CA_CERTIFICATE}: empty the folder", folder.display()))
}

/// The keys that seal sessions; made at the first start, and kept so that sessions outlive a restart.
fn fernet_keys(state: &StateFolder) -> Result<FernetKeyRing, String> {
    if state.read(FERNET_KEYS).map_err(|error| error.to_string())?.is_none() {
        let mut raw = Zeroizing::new([0_u8; 32]);
        rand::rngs::SysRng
            .try_fill_bytes(&mut *raw)
            .map_err(|error| format!("no key can be made: the system gives no random bytes ({error})"))?;
        let line = Zeroizing::new(FernetKeyRing::written(&raw));
        state.write(FERNET_KEYS, &line).map_err(|error| error.to_string())?;
    }
    FernetKeyRing::from_file(&state.path_of(FERNET_KEYS)).map_err(|error| error.to_string())
}

/// The proxy's own pages, and the board.
#[derive(Debug)]
struct Pages {
    view: View,
    board: watch::Receiver<Arc<Board>>,
}

impl AdminView for Pages {
    fn ready(&self) -> Readiness {
        self.view.ready()
    }

    fn tunnels(&self, after: Option<&str>, limit: usize) -> Vec<TunnelRow> {
        self.view.tunnels(after, limit)
    }

    fn before_scrape(&self, metrics: &Metrics) {
        self.view.before_scrape(metrics);
    }

    fn page(&self, path: &str) -> Option<String> {
        (path == STATUS_PATH).then(|| document(&self.board))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_what_to_do() {
        let first = open_ports(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let problem = open_ports(&[first[0].0]).unwrap_err();
        assert!(problem.contains("end it, or take another one, such as --listen 127.0.0.1:"), "{problem}");
        let nowhere = open_ports(&["192.0.2.1:8443".parse().unwrap()]).unwrap_err();
        assert!(nowhere.contains("no such address"), "{nowhere}");
    }

    #[test]
    fn keys_are_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::open(dir.path()).unwrap();
        let token = fernet_keys(&state).unwrap().current().encrypt(b"x", 0, [0; 16]);
        assert!(fernet_keys(&state).unwrap().current().decrypt(token.as_bytes()).is_ok());
    }
}
