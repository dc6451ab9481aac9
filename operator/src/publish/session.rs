//! What to say next on one stream. Pure: the driver says what it sees and asks what to do.
//!
//! At most one update is under way: the next one is made when the proxy has answered it, and then leads to the newest
//! table there is. So a slow proxy passes over what came between, and nothing piles up for it.

use std::sync::Arc;
use std::time::Instant;

use operator_link::Position;

use super::history::Published;
use super::limits::Limits;
use super::standing::{Standing, TokenKeys};

/// One stream.
#[derive(Debug)]
pub(crate) struct Session {
    told: Told,
    keys: Option<Arc<TokenKeys>>,
    table: Table,
}

/// Who the proxy thinks we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    NotLeader,
    Leads(u64),
}

/// What the proxy has.
#[derive(Debug)]
enum Table {
    /// This, as it says.
    Has(Option<Position>),
    /// It was given this, and has put it in force.
    Took(Arc<Published>),
    /// It was given this, and has not answered.
    Awaited { to: Arc<Published>, everything: bool, until: Instant },
    /// It refused everything. No use in trying before this.
    Paused { until: Instant },
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    NotLeader,
    Welcome(u64),
    Keys(Arc<TokenKeys>),
    /// What changed from one table to the other; without the first: everything.
    Update(Option<Arc<Published>>, Arc<Published>),
    /// It never answered.
    HangUp,
    /// Nothing, before this time or the next news.
    Wait(Option<Instant>),
}

impl Session {
    /// A stream whose proxy says that it has this.
    pub(crate) fn begin(has: Option<Position>) -> Self {
        Self { told: Told::Nothing, keys: None, table: Table::Has(has) }
    }

    /// `full`: this stream cannot take a change any more, only everything.
    pub(crate) fn next(&mut self, standing: &Standing, full: bool, now: Instant, limits: &Limits) -> Step {
        let Some(term) = standing.term else {
            if self.told == Told::NotLeader {
                return Step::Wait(None);
            }
            self.told = Told::NotLeader;
            return Step::NotLeader;
        };
        if self.told != Told::Leads(term) {
            self.told = Told::Leads(term);
            return Step::Welcome(term);
        }
        if let Some(keys) = &standing.keys
            && self.keys.as_ref().is_none_or(|told| !Arc::ptr_eq(told, keys))
        {
            self.keys = Some(Arc::clone(keys));
            return Step::Keys(Arc::clone(keys));
        }
        let Some(newest) = standing.history.newest() else { return Step::Wait(None) };
        let from = match &self.table {
            Table::Awaited { until, .. } | Table::Paused { until } if now < *until => {
                return Step::Wait(Some(*until));
            }
            Table::Awaited { .. } => return Step::HangUp,
            Table::Paused { .. } | Table::Has(None) => None,
            Table::Has(Some(has)) if *has == newest.position => return Step::Wait(None),
            Table::Has(Some(has)) => standing.history.start(*has),
            Table::Took(took) if took.position == newest.position && took.domain == newest.domain => {
                return Step::Wait(None);
            }
            // Another table that was published under the same position is no start.
            Table::Took(took) => {
                standing.history.start(took.position).filter(|start| Arc::ptr_eq(start, took))
            }
        };
        let from = from.filter(|_| !full).cloned();
        let (to, until) = (Arc::clone(newest), now + limits.answer);
        self.table = Table::Awaited { to: Arc::clone(&to), everything: from.is_none(), until };
        Step::Update(from, to)
    }

    /// The proxy says what it has in force. Gives the update that this answers with a yes.
    pub(crate) fn answered(
        &mut self,
        position: Option<Position>,
        refused: bool,
        now: Instant,
        limits: &Limits,
    ) -> Option<Arc<Published>> {
        // What answers nothing, changes nothing.
        let Table::Awaited { to, everything, .. } = &self.table else { return None };
        if refused {
            self.table = if *everything {
                Table::Paused { until: now + limits.refused_pause }
            } else {
                Table::Has(None)
            };
            return None;
        }
        if position != Some(to.position) {
            return None;
        }
        let to = Arc::clone(to);
        self.table = Table::Took(Arc::clone(&to));
        Some(to)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
