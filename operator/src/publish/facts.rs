//! What all proxies together see of every instance.
//!
//! One batch of a proxy touches only its instances. Between proxies, a tunnel that is up counts before one that is not,
//! and else what was heard last: by the order in which it came here, never by anybody's clock.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

use imbl::OrdMap;
use planner::{Report, Timestamp, Tunnel};
use route_table::{InstanceId, MAX_ROUTES};

use super::history::Routes;
use super::told::{Reported, Told};

/// What changes while a proxy is listened to began at most so many seconds ago, whatever its clock says.
const FRESH_SECONDS: i64 = 60;

/// A batch of facts.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) from_the_start: bool,
    pub(crate) complete: bool,
    pub(crate) told: Vec<Told>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Is anything else reported now?
    pub(crate) changed: bool,
    /// Instances for which there was no room.
    pub(crate) dropped: u64,
    /// What the proxy did not name again: to be forgotten.
    pub(crate) unnamed: Vec<InstanceId>,
}

/// Everything that proxies told.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    proxies: HashMap<Arc<str>, Known>,
    reports: OrdMap<InstanceId, Arc<Report>>,
    /// How many things were heard, as a clock of our own.
    heard: u64,
    /// How many reports there may be before it is worth looking for those of instances that are no more.
    sweep_at: usize,
}

/// What one proxy told.
#[derive(Debug, Default)]
struct Known {
    /// Goes up whenever it begins from the start.
    round: u64,
    /// Is it telling everything from the start?
    at_the_start: bool,
    seen: HashMap<InstanceId, Seen>,
}

/// What one proxy told of one instance.
#[derive(Debug, Default)]
struct Seen {
    round: u64,
    report: Arc<Report>,
    /// Since when the tunnel is as it is, in the proxy's own words.
    said: i64,
    /// When the tunnel was heard of; 0: never.
    tunnel_heard: u64,
    /// When the agent's own report was heard of; 0: never.
    report_heard: u64,
}

impl Seen {
    fn is_connected(&self) -> bool {
        self.report.tunnel.as_ref().is_some_and(|tunnel| tunnel.connected)
    }
}

impl Facts {
    /// What is known of every instance. Costs nothing.
    pub(crate) fn reports(&self) -> OrdMap<InstanceId, Arc<Report>> {
        self.reports.clone()
    }

    /// Takes a batch. `table` names the instances there are, once that is known; of others a proxy may tell of so many
    /// `strangers`.
    pub(crate) fn take(
        &mut self,
        proxy: &Arc<str>,
        batch: Batch,
        table: Option<&Routes>,
        strangers: usize,
        now: Timestamp,
    ) -> Taken {
        let mut taken = Taken::default();
        let known = self.proxies.entry(Arc::clone(proxy)).or_default();
        if batch.from_the_start {
            known.round += 1;
            known.at_the_start = true;
        }
        let room = table.map_or(MAX_ROUTES, Routes::len).saturating_add(strangers);
        let mut touched = Vec::with_capacity(batch.told.len());
        for told in batch.told {
            self.heard += 1;
            // The text of an id is shared with the table.
            let named = table.and_then(|table| table.get(told.id.as_str()));
            let id = named.map_or_else(|| told.id.clone(), |route| route.id.clone());
            if named.is_none() && known.seen.len() >= room && !known.seen.contains_key(&id) {
                taken.dropped += 1;
                continue;
            }
            let (round, live, heard) = (known.round, !known.at_the_start, self.heard);
            known.seen.entry(id.clone()).or_default().hear(told, round, live, heard, now);
            touched.push(id);
        }
        if batch.complete && known.at_the_start {
            known.at_the_start = false;
            let old = known.seen.iter().filter(|(_, seen)| seen.round < known.round);
            taken.unnamed = old.map(|(id, _)| id.clone()).collect();
        }
        for id in &touched {
            taken.changed |= self.merge(id);
        }
        if let Some(table) = table {
            taken.changed |= self.sweep(table, strangers);
        }
        taken
    }

    /// Forgets what a proxy did not name again, unless it has done so meanwhile.
    pub(crate) fn forget(&mut self, proxy: &str, unnamed: &[InstanceId]) -> bool {
        let mut changed = false;
        for id in unnamed {
            let Some(known) = self.proxies.get_mut(proxy) else { return changed };
            if known.seen.get(id).is_some_and(|seen| seen.round < known.round) {
                known.seen.remove(id);
                changed |= self.merge(id);
            }
        }
        changed
    }

    /// The instances whose tunnels a proxy holds.
    pub(crate) fn held_by(&self, proxy: &str) -> Vec<InstanceId> {
        let seen = self.proxies.get(proxy).into_iter().flat_map(|known| &known.seen);
        seen.filter(|(_, seen)| seen.is_connected()).map(|(id, _)| id.clone()).collect()
    }

    /// The tunnels that a proxy held are gone with it.
    pub(crate) fn cut(&mut self, proxy: &str, held: &[InstanceId], now: Timestamp) -> bool {
        let mut changed = false;
        for id in held {
            self.heard += 1;
            let seen = self.proxies.get_mut(proxy).and_then(|known| known.seen.get_mut(id));
            let Some(seen) = seen.filter(|seen| seen.is_connected()) else { continue };
            let mut report = Report::clone(&seen.report);
            if let Some(tunnel) = &mut report.tunnel {
                (tunnel.connected, tunnel.since) = (false, now);
            }
            (seen.report, seen.tunnel_heard) = (Arc::new(report), self.heard);
            changed |= self.merge(id);
        }
        changed
    }

    /// Puts together what proxies told of an instance. `true` when that gives something else than before.
    fn merge(&mut self, id: &InstanceId) -> bool {
        let all = || self.proxies.values().filter_map(|known| known.seen.get(id));
        let tunnel = all().filter(|seen| seen.tunnel_heard > 0);
        let tunnel = tunnel.max_by_key(|seen| (seen.is_connected(), seen.tunnel_heard));
        let reported = all().filter(|seen| seen.report_heard > 0).max_by_key(|seen| seen.report_heard);
        let report = match (tunnel, reported) {
            (None, None) => return self.reports.remove(id).is_some(),
            (Some(only), None) | (None, Some(only)) => Arc::clone(&only.report),
            (Some(tunnel), Some(reported)) if ptr::eq(tunnel, reported) => Arc::clone(&tunnel.report),
            (Some(tunnel), Some(reported)) => {
                Arc::new(Report { tunnel: tunnel.report.tunnel.clone(), ..Report::clone(&reported.report) })
            }
        };
        if self.reports.get(id).is_some_and(|before| *before == report) {
            return false;
        }
        self.reports.insert(id.clone(), report);
        true
    }

    /// Forgets instances that are in no table any more. Looks for them only when there must be many, since that means
    /// looking at all.
    fn sweep(&mut self, table: &Routes, strangers: usize) -> bool {
        let enough = table.len().saturating_add(strangers).max(self.sweep_at);
        if self.reports.len() <= enough {
            return false;
        }
        let gone = |(id, report): &(&InstanceId, &Arc<Report>)| {
            !table.contains_key(*id) && !report.tunnel.as_ref().is_some_and(|tunnel| tunnel.connected)
        };
        let gone: Vec<_> = self.reports.iter().filter(gone).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.reports.remove(id);
            for known in self.proxies.values_mut() {
                known.seen.remove(id);
            }
        }
        self.sweep_at = self.reports.len().saturating_add(strangers);
        !gone.is_empty()
    }
}

impl Seen {
    fn hear(&mut self, told: Told, round: u64, live: bool, heard: u64, now: Timestamp) {
        let Told { id: _, tunnel, reported } = told;
        let before = Arc::clone(&self.report);
        // What an earlier round told counts no more, except to find out what is news.
        let goes_on = self.round == round;
        self.round = round;
        let tunnel = match (tunnel, &before.tunnel) {
            (Some(tunnel), known) => Some(self.hear_tunnel(tunnel, known.as_ref(), live, heard, now)),
            (None, Some(known)) if goes_on => Some(known.clone()),
            (None, _) => {
                self.tunnel_heard = 0;
                None
            }
        };
        let (version, certificate) = match reported {
            Some(Reported { version, certificate }) => {
                let same = version == before.version && certificate == before.certificate;
                if !same || self.report_heard == 0 {
                    self.report_heard = heard;
                }
                (version, certificate)
            }
            None if goes_on => (before.version.clone(), before.certificate.clone()),
            None => {
                self.report_heard = 0;
                (None, None)
            }
        };
        let report = Report { tunnel, version, certificate };
        if report != *before {
            self.report = Arc::new(report);
        }
    }

    fn hear_tunnel(
        &mut self,
        tunnel: Tunnel,
        known: Option<&Tunnel>,
        live: bool,
        heard: u64,
        now: Timestamp,
    ) -> Tunnel {
        let said = tunnel.since.0;
        let known = known.filter(|known| known.connected == tunnel.connected && self.said == said);
        let since = match known {
            // The same thing again: what we made of it the first time stands.
            Some(known) => known.since,
            // We have just heard of it, so that it is new, or the proxy's clock is wrong.
            None if live => tunnel.since.clamp(now.plus_seconds(-FRESH_SECONDS), now),
            None => tunnel.since.min(now),
        };
        if known.is_none() {
            self.tunnel_heard = heard;
        }
        self.said = said;
        Tunnel { since, ..tunnel }
    }
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
