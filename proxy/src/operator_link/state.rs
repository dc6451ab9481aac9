//! How the link is, for people and for metrics.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use operator_link::Position;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::leaders::CallId;
use crate::{
    admin::Condition,
    clock,
    metrics::{ByLabel, Metrics, Seconds, UpdateResult, unix_now},
};

/// What the link counts.
#[derive(Debug)]
pub struct LinkMetrics {
    /// 1 while a leader is attached.
    pub connected: Gauge,
    /// Streams to pods of the operator, leader or not.
    pub streams: Gauge,
    /// When a leader was last heard.
    pub heard: Seconds,
    /// Term of the table in force.
    pub term: Gauge,
    /// Updates of the table.
    pub updates: ByLabel<UpdateResult>,
    /// Leaders that were refused, because one of a higher term was heard.
    pub deposed: Counter,
}

impl LinkMetrics {
    /// Registers them beside the proxy's own. Not part of those: a proxy without an operator is not one that lost it.
    pub fn register(metrics: &mut Metrics) -> Self {
        let gauge = |metrics: &mut Metrics, name, help| metrics.also(name, help, Gauge::default());
        Self {
            connected: gauge(metrics, "operator_connected", "1 while a leader of the operator is attached"),
            streams: gauge(metrics, "operator_streams", "Streams to pods of the operator, leader or not"),
            heard: metrics
                .also_seconds("operator_heard_timestamp", "When a leader of the operator was last heard"),
            term: gauge(metrics, "route_table_term", "The operator's term of the route table in use"),
            updates: metrics
                .also_by_label("operator_updates", "Updates of the route table, by what came of them"),
            deposed: metrics.also(
                "operator_leaders_refused",
                "Leaders that were refused because one of a higher term was heard",
                Counter::default(),
            ),
        }
    }
}

/// A leader that is attached.
#[derive(Clone, Debug)]
struct Leader {
    call: CallId,
    address: SocketAddr,
    term: u64,
    version: String,
}

#[derive(Debug)]
struct Known {
    leader: Option<Leader>,
    /// Since when there is one, or none.
    since: SystemTime,
    position: Option<Position>,
    routes: usize,
    applied: Option<SystemTime>,
    /// Why the last update was not taken.
    refused: Option<String>,
}

/// How the link is.
#[derive(Debug)]
pub(super) struct LinkState {
    known: Mutex<Known>,
    pub(super) metrics: LinkMetrics,
}

impl LinkState {
    pub(super) fn new(metrics: LinkMetrics) -> Self {
        let known = Known {
            leader: None,
            since: clock::now(),
            position: None,
            routes: 0,
            applied: None,
            refused: None,
        };
        Self { known: Mutex::new(known), metrics }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A leader is attached.
    pub(super) fn attached(&self, call: CallId, address: SocketAddr, term: u64, version: String) {
        let mut known = self.lock();
        if known.leader.is_none() {
            known.since = clock::now();
        }
        known.leader = Some(Leader { call, address, term, version });
        self.metrics.connected.set(1);
    }

    /// A stream leads no more.
    pub(super) fn lost(&self, call: CallId) {
        let mut known = self.lock();
        if known.leader.as_ref().is_some_and(|leader| leader.call == call) {
            known.leader = None;
            known.since = clock::now();
            self.metrics.connected.set(0);
        }
    }

    /// The leader said something.
    pub(super) fn heard(&self) {
        self.metrics.heard.set(unix_now());
    }

    /// A table is in force; `applied` is none for one out of the cache.
    pub(super) fn in_force(&self, position: Position, routes: usize, applied: Option<SystemTime>) {
        let mut known = self.lock();
        (known.position, known.routes, known.applied) = (Some(position), routes, applied);
        known.refused = None;
        self.metrics.term.set(i64::try_from(position.term).unwrap_or(i64::MAX));
    }

    /// An update was not taken. Is it another mistake than the last one?
    pub(super) fn refused(&self, why: &str) -> bool {
        let before = self.lock().refused.replace(why.to_owned());
        before.as_deref() != Some(why)
    }

    /// When the table in force was applied, if it came from an operator since the start.
    pub(super) fn applied(&self) -> Option<SystemTime> {
        self.lock().applied
    }

    /// What `/readyz` says. Without a table nobody can be served; without a leader the last good one goes on.
    pub(super) fn conditions(&self) -> [Condition; 2] {
        let known = self.lock();
        let refused =
            known.refused.as_ref().map_or_else(String::new, |why| format!("; an update is refused: {why}"));
        let table = match known.position {
            None => Condition::new("routes", false)
                .with_message(format!("no operator has sent a table yet{refused}")),
            Some(position) => {
                // A leader that has the same table sends nothing.
                let is_kept = known.applied.is_none() && known.leader.is_none();
                let source = if is_kept { ", out of the cache" } else { "" };
                let message = format!("position {position}, {} routes{source}{refused}", known.routes);
                let table = Condition::new("routes", true).with_message(message);
                match known.applied {
                    Some(applied) => table.with_age(clock::since(applied)),
                    None => table,
                }
            }
        };
        let message = known.leader.as_ref().map_or_else(
            || "no leader is attached: the table goes stale".to_owned(),
            |leader| {
                format!(
                    "the leader of term {} at {}, version {}",
                    leader.term, leader.address, leader.version
                )
            },
        );
        let since = clock::since(known.since);
        [table, Condition::new("operator", true).with_message(message).with_age(since)]
    }
}
