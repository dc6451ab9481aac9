//! The tables published last.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use operator_link::Position;
use planner::Ordered;
use route_table::{HostName, InstanceId, Route};

use super::limits::Limits;

/// Every route, as a plan has them.
pub(crate) type Routes = Ordered<InstanceId, Arc<Route>>;

/// So many changes are told as such, however few routes there are.
const FEW_CHANGES: usize = 1_000;

/// A table as proxies are told it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) position: Position,
    pub(crate) domain: HostName,
    pub(crate) routes: Routes,
    /// When it was published.
    pub(crate) at: Instant,
}

/// The newest table, and some before it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// The oldest first, each with how many routes changed with it.
    tables: VecDeque<(Arc<Published>, usize)>,
}

impl History {
    pub(crate) fn newest(&self) -> Option<&Arc<Published>> {
        self.tables.back().map(|(table, _)| table)
    }

    /// The table to tell changes from to somebody at `position`, if there is one. Where more than half of everything
    /// changed, everything is told sooner than the changes are.
    pub(crate) fn start(&self, position: Position) -> Option<&Arc<Published>> {
        let at = self.tables.binary_search_by_key(&position, |(table, _)| table.position).ok()?;
        let changes: usize = self.tables.iter().skip(at + 1).map(|(_, changes)| *changes).sum();
        let all = self.newest().map_or(0, |newest| newest.routes.len());
        if changes > FEW_CHANGES.max(all / 2) {
            return None;
        }
        self.tables.get(at).map(|(table, _)| table)
    }

    /// Since when somebody at `position` lacks something.
    pub(crate) fn behind_since(&self, position: Option<Position>) -> Option<Instant> {
        let newer = |table: &&(Arc<Published>, usize)| position.is_none_or(|has| table.0.position > has);
        self.tables.iter().find(newer).map(|(table, _)| table.at)
    }

    /// Adds the next table. `false`, and nothing happens, when it is not newer than the newest.
    pub(crate) fn push(&mut self, next: Published, limits: &Limits) -> bool {
        let changes = match self.newest() {
            Some(newest) if newest.position > next.position => return false,
            Some(newest) if newest.position == next.position => {
                if newest.domain == next.domain {
                    return false;
                }
                // Another domain with the same routes: what came before leads nowhere any more.
                self.tables.clear();
                0
            }
            Some(newest) => next.routes.changes_since(&newest.routes).len(),
            None => 0,
        };
        self.tables.push_back((Arc::new(next), changes));
        // A table kept holds what later ones changed, so the first one's own changes do not count.
        let mut held: usize = self.tables.iter().skip(1).map(|(_, changes)| *changes).sum();
        while self.tables.len() > limits.kept_tables.max(1) || held > limits.kept_changes {
            self.tables.pop_front();
            held = held.saturating_sub(self.tables.front().map_or(0, |(_, changes)| *changes));
        }
        true
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
