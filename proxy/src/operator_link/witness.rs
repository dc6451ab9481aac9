//! What goes on here, gathered for the leader: tunnels as the registry notes them, reports as agents make them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use operator_link::wire;
use route_table::{InstanceId, RouteTable};
use tokio::sync::Notify;

use super::facts::{Book, OpenTunnels};
use crate::{
    clock,
    session_api::{CertificateFacts, Report, Reports},
    tunnels::registry::{Instance, Registry},
};

/// Sees what happens, and remembers what of it the leader has not heard.
#[derive(Debug, Default)]
pub(super) struct Witness {
    book: Mutex<Book>,
    reported: Notify,
}

impl Witness {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the tunnels that came or went.
    pub(super) fn look(&self, registry: &Registry) {
        for name in registry.changes().take() {
            let Ok(id) = name.parse::<InstanceId>() else { continue };
            let open = registry.get(&name).and_then(|instance| open_tunnels(&instance));
            self.book().tunnels(id, open, unix_now());
        }
    }

    /// Waits until there may be something new.
    pub(super) async fn news(&self, registry: &Registry) {
        tokio::select! {
            () = registry.changes().noted() => {}
            () = self.reported.notified() => {}
        }
    }

    /// A new leader knows nothing.
    pub(super) fn begin(&self) {
        self.book().begin();
    }

    /// The next message for the leader.
    pub(super) fn next(&self) -> Option<wire::Facts> {
        self.book().next()
    }

    /// Forgets instances that left the table.
    pub(super) fn retain(&self, table: &RouteTable) {
        self.book().retain(|id| table.by_id(id.as_str()).is_some());
    }
}

impl Reports for Witness {
    fn reported(&self, report: Report) {
        let reported = wire::Reported {
            version: report.version,
            certificate: report.certificate.map(certificate),
            at: unix_now(),
        };
        self.book().reported(report.route.id.clone(), reported);
        self.reported.notify_one();
    }
}

fn certificate(facts: CertificateFacts) -> wire::Certificate {
    wire::Certificate {
        fingerprint_sha256: facts.fingerprint_sha256.as_bytes().to_vec(),
        names: facts.names,
        issuer: facts.issuer,
        not_after: facts.not_after,
        // Agents do not tell it.
        acme_account_uri: None,
    }
}

fn open_tunnels(instance: &Arc<Instance>) -> Option<OpenTunnels> {
    let mut open: Vec<_> = instance.live().into_iter().filter(|live| !live.tunnel.is_closed()).collect();
    open.sort_by_key(|live| live.number);
    let (first, newest) = (open.iter().map(|live| live.session.opened).min()?, open.last()?);
    Some(OpenTunnels {
        count: u32::try_from(open.len()).unwrap_or(u32::MAX),
        since: unix(first),
        agent_version: newest.session.claims.as_ref().map(|claims| claims.agent.clone()).unwrap_or_default(),
        protocol_version: newest.session.protocol.number().into(),
    })
}

fn unix(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

fn unix_now() -> i64 {
    unix(clock::now())
}
