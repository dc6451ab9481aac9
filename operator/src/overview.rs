//! What the operator is doing, for whoever looks: the admin page, metrics, readiness.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use planner::Ordered;
use resources::{RemoteInstanceStatus, VersionBlockStatus};
use route_table::InstanceId;

/// The state of the driver. A new one is published after every turn.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    /// The term, while this process leads.
    pub term: Option<u64>,
    /// Has every watch told all there is?
    pub synced: bool,
    /// Why nothing can be planned, if so.
    pub problem: Option<String>,
    /// The plan in force.
    pub revision: Option<u64>,
    /// How many turns were made.
    pub turns: u64,
    /// How long the last plan took.
    pub planned_in: Duration,
    /// Routes of the plan.
    pub routes: usize,
    /// What was decided about instances.
    pub instances: Ordered<InstanceId, Arc<RemoteInstanceStatus>>,
    /// What was decided about blocks.
    pub blocks: OrdMap<String, Arc<VersionBlockStatus>>,
}

impl Overview {
    /// May this process be counted on? A follower is ready once it could take over at once; a leader once it has
    /// published.
    pub fn is_ready(&self) -> bool {
        self.synced && (self.term.is_none() || self.revision.is_some())
    }

    /// In one line, why it is ready or not.
    pub fn told(&self) -> String {
        let role = self.term.map_or_else(|| "follower".to_owned(), |term| format!("leader of term {term}"));
        match (&self.problem, self.synced, self.revision) {
            (Some(problem), ..) => format!("{role}: {problem}"),
            (None, false, _) => format!("{role}: watches have not told everything yet"),
            (None, true, Some(revision)) => format!("{role}: revision {revision} is published"),
            (None, true, None) if self.term.is_some() => format!("{role}: nothing is published yet"),
            (None, true, None) => format!("{role}: watches are in sync"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_tells_the_truth() {
        // (term, synced, revision, ready)
        for (term, synced, revision, ready) in [
            (None, false, None, false),
            (None, true, None, true),
            (Some(1), true, None, false),
            (Some(1), true, Some(4), true),
            (Some(1), false, Some(4), false),
        ] {
            let overview = Overview { term, synced, revision, ..Overview::default() };
            assert_eq!(overview.is_ready(), ready, "{}", overview.told());
        }
    }
}
