//! The session API as the front door knows it.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use route_table::{RouteTable, SESSION_LABEL};
use tokio::{net::TcpStream, runtime::Handle};

use super::{
    ApiIdentity, ApiTlsError, Enrolment, IDENTITY_WATCH_EVERY, Reports, Rewound, SessionApi,
    SessionApiSettings, TableSource,
};
use crate::{door::ApiDesk, fernet_keys::FernetKeyRing, metrics::Metrics, visitor::clients::ClientPermit};

/// Serves connections on a runtime of the caller's: TLS handshakes cost milliseconds, which the threads that move
/// bytes do not have.
pub struct Desk(Arc<Inner>);

struct Inner {
    parts: DeskParts,
    folder: Option<PathBuf>,
    runtime: Handle,
    opened: OnceLock<Opened>,
    opening: Mutex<()>,
}

struct Opened {
    api: SessionApi,
    identity: Arc<ApiIdentity>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let api = self.0.opened.get().map(|opened| &opened.api);
        f.debug_tuple("Desk").field(&api).finish()
    }
}

/// What a desk is made of.
pub struct DeskParts {
    /// Limits and terms.
    pub settings: SessionApiSettings,
    /// The domain in the settings; without it, the table's.
    pub domain: Option<String>,
    /// The table in force.
    pub table: TableSource,
    /// What seals tokens.
    pub keys: Arc<FernetKeyRing>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where reports go.
    pub reports: Arc<dyn Reports>,
    /// Who registers keys.
    pub enrolment: Arc<dyn Enrolment>,
}

impl fmt::Debug for DeskParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeskParts").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Desk {
    /// Opens the desk, with the certificate in `folder`, and keeps that fresh. While no domain is known there is no
    /// name for a certificate: it is then made for the first agent that comes after a table named one.
    pub fn open(parts: DeskParts, folder: Option<&Path>, runtime: Handle) -> Result<Self, ApiTlsError> {
        let folder = folder.map(Path::to_owned);
        let inner = Inner { parts, folder, runtime, opened: OnceLock::new(), opening: Mutex::default() };
        inner.ready()?;
        Ok(Self(Arc::new(inner)))
    }

    /// The certificate that is served, once a domain was known.
    pub fn identity(&self) -> Option<&Arc<ApiIdentity>> {
        self.0.opened.get().map(|opened| &opened.identity)
    }
}

impl Inner {
    /// Opens what is not open yet; `None` while no domain is known.
    fn ready(&self) -> Result<Option<&Opened>, ApiTlsError> {
        if let Some(opened) = self.opened.get() {
            return Ok(Some(opened));
        }
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let DeskParts { settings, domain, table, keys, metrics, reports, enrolment } = &self.parts;
        let (domain, source) = (domain.clone(), Arc::clone(table));
        let name = move || session_host(domain.as_deref(), &source());
        let Some(first_name) = name() else { return Ok(None) };
        if self.opened.get().is_none() {
            let identity = Arc::new(ApiIdentity::open(self.folder.as_deref(), &first_name)?);
            let api = SessionApi::new(
                settings.clone(),
                Arc::clone(&identity),
                Arc::clone(table),
                Arc::clone(keys),
                Arc::clone(metrics),
                Arc::clone(reports),
                Arc::clone(enrolment),
            )?;
            self.runtime.spawn(Arc::clone(&identity).watch(IDENTITY_WATCH_EVERY, name));
            // Nobody else sets it: we hold the lock.
            let _ = self.opened.set(Opened { api, identity });
        }
        Ok(self.opened.get())
    }
}

/// The name of the session API: `connect.<domain>`.
fn session_host(domain: Option<&str>, table: &RouteTable) -> Option<String> {
    let domain = domain.or_else(|| table.domain.as_ref().map(route_table::HostName::as_str))?;
    Some(format!("{SESSION_LABEL}.{domain}"))
}

impl ApiDesk for Desk {
    fn serve(
        &self,
        stream: std::net::TcpStream,
        first: Vec<u8>,
        peer: SocketAddr,
        place: Option<ClientPermit>,
    ) {
        let desk = Arc::clone(&self.0);
        self.0.runtime.spawn(async move {
            let _place = place;
            let api = match desk.ready() {
                Ok(Some(opened)) => opened.api.clone(),
                // The table lost its domain between the look at the name and now.
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(target: "latchkey::keys", %error, "the session API has no certificate");
                    return;
                }
            };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            match stream {
                Ok(stream) => api.serve(Rewound::new(first, stream), peer.ip()).await,
                Err(error) => {
                    tracing::warn!(target: "latchkey::session", %error, "a connection cannot be taken over");
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_domain_comes_before_the_tables() {
        let table = RouteTable::from_routes(1, Some("ui.example.com".parse().unwrap()), []).unwrap();
        assert_eq!(session_host(None, &table).as_deref(), Some("connect.ui.example.com"));
        assert_eq!(session_host(Some("x.example"), &table).as_deref(), Some("connect.x.example"));
        assert_eq!(session_host(None, &RouteTable::default()), None);
    }

    #[tokio::test]
    async fn a_domain_that_comes_later_opens_the_desk_without_a_restart() {
        let live = crate::routes::Live::new(RouteTable::default());
        let source = live.clone();
        let parts = DeskParts {
            settings: SessionApiSettings::default(),
            domain: None,
            table: Arc::new(move || source.current()),
            keys: Arc::new(FernetKeyRing::random().unwrap()),
            metrics: Arc::new(Metrics::new()),
            reports: Arc::new(super::super::NoReports),
            enrolment: Arc::new(super::super::NoEnrolment),
        };
        let desk = Desk::open(parts, None, Handle::current()).unwrap();
        assert!(desk.identity().is_none() && desk.0.ready().unwrap().is_none());
        live.publish(RouteTable::from_routes(2, Some("ui.example.com".parse().unwrap()), []).unwrap());
        assert!(desk.0.ready().unwrap().is_some());
        let first = desk.identity().unwrap().ca();
        desk.0.ready().unwrap();
        assert_eq!(desk.identity().unwrap().ca(), first, "it is opened once");
    }
}
