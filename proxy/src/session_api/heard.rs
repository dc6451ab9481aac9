//! What agents said last, kept for whoever plans.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use route_table::{InstanceId, RouteTable};
use tokio::sync::watch;

use super::{Report, Reports};

/// The latest report of each instance. Only instances of the table can report, so it is no larger than that; those
/// that left it are forgotten by [`Heard::retain`].
#[derive(Debug)]
pub struct Heard {
    latest: Mutex<BTreeMap<InstanceId, Report>>,
    changed: watch::Sender<u64>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { latest: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Report>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest reports, by instance.
    pub fn latest(&self) -> BTreeMap<InstanceId, Report> {
        self.lock().clone()
    }

    /// Tells of every report from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Forgets instances that are in the table no more.
    pub fn retain(&self, table: &RouteTable) {
        self.lock().retain(|id, _| table.by_id(id.as_str()).is_some());
    }
}

impl Reports for Heard {
    fn reported(&self, report: Report) {
        self.lock().insert(report.route.id.clone(), report);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use route_table::{Fingerprint, Route};

    use super::*;

    fn report(id: &str, version: &str) -> Report {
        Report {
            route: Route::new(id.parse().unwrap()),
            key: Fingerprint::from_bytes([1; 32]),
            peer: Ipv4Addr::LOCALHOST.into(),
            version: Some(version.to_owned()),
            agent_version: None,
            certificate: None,
            session: None,
        }
    }

    #[test]
    fn the_latest_report_counts_and_who_left_is_forgotten() {
        let heard = Heard::default();
        let mut told = heard.subscribe();
        heard.reported(report("homes/a", "1"));
        heard.reported(report("homes/a", "2"));
        heard.reported(report("homes/b", "3"));
        assert!(told.has_changed().unwrap());
        told.mark_unchanged();
        let versions: Vec<_> = heard.latest().into_values().filter_map(|report| report.version).collect();
        assert_eq!(versions, ["2", "3"]);
        let table = RouteTable::from_routes(1, None, [Route::new("homes/b".parse().unwrap())]).unwrap();
        heard.retain(&table);
        assert_eq!(heard.latest().into_keys().map(|id| id.to_string()).collect::<Vec<_>>(), ["homes/b"]);
    }
}
