//! The tables published last.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use operator_link::{Position, Relisting};
use planner::Ordered;
use route_table::{HostName, InstanceId, Route};

use super::changes::{Changes, FEW, changes};
use super::limits::Limits;

/// Every route, as a plan has them.
pub(crate) type Routes = Ordered<InstanceId, Route>;

/// A table as proxies are told it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) position: Position,
    pub(crate) domain: HostName,
    pub(crate) routes: Routes,
    /// When it was published.
    pub(crate) at: Instant,
    /// What makes it out of the table before, where that can be told shortly: worked out once for every proxy.
    pub(crate) step: Option<Shortly>,
}

/// What another list of blocks for many changes, and what else did.
#[derive(Debug)]
pub(crate) struct Shortly {
    pub(crate) from: Position,
    pub(crate) relisted: Vec<Relisting>,
    pub(crate) changed: Vec<Route>,
    pub(crate) removed: Vec<InstanceId>,
}

/// The newest table, and some before it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// The oldest first, each with what changed with it.
    tables: VecDeque<(Arc<Published>, Difference)>,
}

/// How much a table differs from the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Difference {
    /// Routes.
    routes: usize,
    /// Those of them that have to be told one by one.
    told: usize,
}

impl History {
    pub(crate) fn newest(&self) -> Option<&Arc<Published>> {
        self.tables.back().map(|(table, _)| table)
    }

    /// The table to tell changes from to somebody at `position`, if there is one. Where more than half of everything
    /// changed, everything is told sooner than the changes are.
    pub(crate) fn start(&self, position: Position) -> Option<&Arc<Published>> {
        let at = self.tables.binary_search_by_key(&position, |(table, _)| table.position).ok()?;
        let changes: usize = self.tables.iter().skip(at + 1).map(|(_, changes)| changes.told).sum();
        let all = self.newest().map_or(0, |newest| newest.routes.len());
        if changes > FEW.max(all / 2) {
            return None;
        }
        self.tables.get(at).map(|(table, _)| table)
    }

    /// Since when somebody at `position` lacks something.
    pub(crate) fn behind_since(&self, position: Option<Position>) -> Option<Instant> {
        let newer = |table: &&(Arc<Published>, Difference)| position.is_none_or(|has| table.0.position > has);
        self.tables.iter().find(newer).map(|(table, _)| table.at)
    }

    /// Adds the next table. `false`, and nothing happens, when it is not newer than the newest.
    pub(crate) fn push(&mut self, mut next: Published, limits: &Limits) -> bool {
        let changes = match self.newest() {
            Some(newest) if newest.position > next.position => return false,
            Some(newest) if newest.position == next.position => {
                if newest.domain == next.domain {
                    return false;
                }
                // Another domain with the same routes: what came before leads nowhere any more.
                self.tables.clear();
                Difference::default()
            }
            Some(newest) => {
                let Changes { all, relisted, rest } = changes(&newest.routes, &next.routes);
                let difference = Difference { routes: all.len(), told: rest.len() };
                let step = (!relisted.is_empty()).then(|| {
                    let changed = rest.iter().filter_map(|(_, route)| route.cloned()).collect();
                    let gone = rest.iter().filter(|(_, route)| route.is_none());
                    let removed = gone.map(|(id, _)| (*id).clone()).collect();
                    Shortly { from: newest.position, relisted, changed, removed }
                });
                next.step = step;
                difference
            }
            None => Difference::default(),
        };
        self.tables.push_back((Arc::new(next), changes));
        // A table kept holds what later ones changed, so the first one's own changes do not count.
        let mut held: usize = self.tables.iter().skip(1).map(|(_, changes)| changes.routes).sum();
        while self.tables.len() > limits.kept_tables.max(1) || held > limits.kept_changes {
            self.tables.pop_front();
            held = held.saturating_sub(self.tables.front().map_or(0, |(_, changes)| changes.routes));
        }
        true
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
