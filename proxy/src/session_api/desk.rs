//! The session API as the front door knows it.

use std::{fmt, net::SocketAddr, path::Path, sync::Arc};

use route_table::{RouteTable, SESSION_LABEL};
use tokio::{net::TcpStream, runtime::Handle};

use super::{
    ApiIdentity, ApiTlsError, Enrolment, IDENTITY_WATCH_EVERY, Reports, Rewound, SessionApi,
    SessionApiSettings, TableSource,
};
use crate::{door::ApiDesk, fernet_keys::FernetKeyRing, metrics::Metrics, visitor::clients::ClientPermit};

/// Serves connections on a runtime of the caller's: TLS handshakes cost milliseconds, which the threads that move
/// bytes do not have.
pub struct Desk {
    api: SessionApi,
    identity: Arc<ApiIdentity>,
    runtime: Handle,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Desk").field(&self.api).finish()
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
    /// Opens the desk, with the certificate in `folder`, and keeps that fresh. `None` while no domain is known.
    pub fn open(
        parts: DeskParts,
        folder: Option<&Path>,
        runtime: Handle,
    ) -> Result<Option<Self>, ApiTlsError> {
        let DeskParts { settings, domain, table, keys, metrics, reports, enrolment } = parts;
        let name = {
            let table = Arc::clone(&table);
            move || session_host(domain.as_deref(), &table())
        };
        let Some(first_name) = name() else { return Ok(None) };
        let identity = Arc::new(ApiIdentity::open(folder, &first_name)?);
        runtime.spawn(Arc::clone(&identity).watch(IDENTITY_WATCH_EVERY, name));
        let api = SessionApi::new(settings, Arc::clone(&identity), table, keys, metrics, reports, enrolment)?;
        Ok(Some(Self { api, identity, runtime }))
    }

    /// The certificate that is served.
    pub const fn identity(&self) -> &Arc<ApiIdentity> {
        &self.identity
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
        let api = self.api.clone();
        self.runtime.spawn(async move {
            let _place = place;
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
}
