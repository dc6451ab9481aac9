//! What the proxy in this process knows, as facts for the planner.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;
use latchkey_proxy::{
    proxy::OpenTunnel,
    session_api::{self, Heard},
};
use planner::{CertificateFacts, Report, Tunnel};
use resources::Timestamp;
use route_table::InstanceId;

/// Remembers since when a tunnel is up or gone.
#[derive(Debug, Default)]
pub struct Seen {
    tunnels: BTreeMap<InstanceId, Tunnel>,
}

impl Seen {
    /// Takes a look at what is open now; did anything change?
    pub fn look(&mut self, open: &[OpenTunnel], now: Timestamp) -> bool {
        let mut present: BTreeMap<InstanceId, Tunnel> = BTreeMap::new();
        for tunnel in open {
            let Ok(id) = tunnel.instance.parse::<InstanceId>() else { continue };
            let since = tunnel.since.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
            let since = Timestamp(i64::try_from(since).unwrap_or(i64::MAX));
            let told = Tunnel {
                connected: true,
                since,
                agent_version: tunnel.agent_version.clone(),
                protocol_version: Some(tunnel.protocol_version),
            };
            // Of several, the one that has been up for longest says since when; the newest says the rest.
            present
                .entry(id)
                .and_modify(|known| *known = Tunnel { since: known.since.min(since), ..told.clone() })
                .or_insert(told);
        }
        let mut changed = false;
        for (id, known) in &mut self.tunnels {
            if known.connected && !present.contains_key(id) {
                (known.connected, known.since, changed) = (false, now, true);
            }
        }
        for (id, tunnel) in present {
            if let Some(known) = self.tunnels.get(&id).filter(|known| known.connected) {
                // A session that is renewed beside the old one is no interruption.
                let same = Tunnel { since: known.since, ..tunnel.clone() };
                if *known == same {
                    continue;
                }
                self.tunnels.insert(id, same);
            } else {
                self.tunnels.insert(id, tunnel);
            }
            changed = true;
        }
        changed
    }

    /// The reports for the planner.
    pub fn reports(&self, heard: &Heard) -> OrdMap<InstanceId, Arc<Report>> {
        let mut reports: BTreeMap<InstanceId, Report> = BTreeMap::new();
        for (id, told) in heard.latest() {
            let certificate = told.certificate.map(certificate);
            reports.insert(id, Report { tunnel: None, version: told.version, certificate });
        }
        for (id, tunnel) in &self.tunnels {
            reports.entry(id.clone()).or_default().tunnel = Some(tunnel.clone());
        }
        reports.into_iter().map(|(id, report)| (id, Arc::new(report))).collect()
    }

    /// Is a tunnel open at this moment? A status tells it with a delay, so that a short gap is not written down.
    pub fn is_connected(&self, id: &InstanceId) -> bool {
        self.tunnels.get(id).is_some_and(|tunnel| tunnel.connected)
    }

    /// Forgets instances that are in no plan any more.
    pub fn retain(&mut self, known: impl Fn(&InstanceId) -> bool) {
        self.tunnels.retain(|id, _| known(id));
    }
}

fn certificate(told: session_api::CertificateFacts) -> CertificateFacts {
    CertificateFacts {
        fingerprint: told.fingerprint_sha256,
        names: told.names,
        issuer: told.issuer,
        // A time that cannot be read is one that nobody knows.
        not_after: told.not_after.and_then(|text| text.parse().ok()),
        acme_account_uri: None,
        strange: imbl::OrdSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn open(instance: &str, since: u64) -> OpenTunnel {
        OpenTunnel {
            instance: instance.into(),
            since: UNIX_EPOCH + Duration::from_secs(since),
            version: None,
            agent_version: Some("0.1.0".to_owned()),
            protocol_version: 2,
        }
    }

    #[test]
    fn tunnels_come_go_and_are_renewed() {
        let mut seen = Seen::default();
        let heard = Heard::default();
        let tunnel = |seen: &Seen| {
            let reports = seen.reports(&heard);
            reports.values().next().and_then(|report| report.tunnel.clone()).map(|t| (t.connected, t.since.0))
        };
        assert!(!seen.look(&[], Timestamp(1)));
        assert!(seen.look(&[open("homes/a", 10)], Timestamp(11)));
        assert_eq!(tunnel(&seen), Some((true, 10)));
        assert!(!seen.look(&[open("homes/a", 10)], Timestamp(12)), "nothing new");
        assert!(!seen.look(&[open("homes/a", 10), open("homes/a", 12)], Timestamp(13)), "a second beside it");
        assert!(!seen.look(&[open("homes/a", 12)], Timestamp(14)), "renewed without a gap");
        assert_eq!(tunnel(&seen), Some((true, 10)));
        assert!(seen.look(&[], Timestamp(20)));
        assert_eq!(tunnel(&seen), Some((false, 20)));
        assert!(seen.look(&[open("homes/a", 21)], Timestamp(22)));
        assert_eq!(tunnel(&seen), Some((true, 21)));
        seen.retain(|_| false);
        assert_eq!(tunnel(&seen), None);
    }
}
