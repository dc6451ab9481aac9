//! All that `plan` has to tell, in the form that machines read.

use std::collections::BTreeMap;

use planner::Plan;
use resources::VersionBlockStatus;
use route_table::InstanceId;
use serde::Serialize;

use super::difference::{Change, InstanceChange, instances};
use super::sides::Sides;

/// What random names are shown as where nobody knows the seed.
const RANDOM: &str = "<random>";

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlanReport {
    pub(crate) summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<DomainChange>,
    pub(crate) instances: Vec<InstanceChange>,
    pub(crate) blocks: Vec<BlockChange>,
    /// How many documents of other kinds were passed over.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) passed_over: BTreeMap<String, usize>,
}

/// In figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
    /// Instances at which somebody would be cut off.
    pub(crate) disconnected: usize,
    pub(crate) conflicts: usize,
}

/// The installation moves to another domain: every assigned name with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DomainChange {
    pub(crate) before: String,
    pub(crate) after: String,
}

/// What would change for a version block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BlockChange {
    pub(crate) block: String,
    pub(crate) change: Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Counts>,
}

/// What a block does. One that only warns blocks nobody: `blocked` is whom it would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) warns: bool,
    pub(crate) matched: i64,
    pub(crate) blocked: i64,
    pub(crate) accepted: i64,
}

impl PlanReport {
    /// Does nothing change?
    pub(crate) fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.blocks.is_empty() && self.domain.is_none()
    }
}

/// Compares both sides.
pub(crate) fn make(sides: &Sides) -> PlanReport {
    let mut instances = instances(sides.before.as_ref(), &sides.after);
    if !sides.seed_is_known {
        for each in &mut instances {
            hide_random_name(each, sides);
        }
    }
    let count = |change: Change| instances.iter().filter(|each| each.change == change).count();
    let summary = Summary {
        added: count(Change::Added),
        changed: count(Change::Changed),
        removed: count(Change::Removed),
        disconnected: instances.iter().filter(|each| !each.disconnects.is_empty()).count(),
        conflicts: instances.iter().map(|each| each.conflicts.len()).sum(),
    };
    let domain = sides.settings_before.as_ref().and_then(|before| {
        let (before, after) = (before.spec.domain.to_string(), sides.settings.spec.domain.to_string());
        (before != after).then_some(DomainChange { before, after })
    });
    let mut passed_over = BTreeMap::new();
    for other in &sides.passed_over {
        *passed_over.entry(other.kind.clone()).or_default() += 1;
    }
    PlanReport { summary, domain, instances, blocks: blocks(sides), passed_over }
}

fn blocks(sides: &Sides) -> Vec<BlockChange> {
    let before = sides.before.as_ref();
    let mut names: Vec<&String> = before.into_iter().flat_map(|plan| plan.blocks.keys()).collect();
    names.extend(sides.after.blocks.keys());
    names.sort();
    names.dedup();
    let warns = |name: &str| sides.warning_blocks.contains(name);
    let warned_before = |name: &str| sides.warning_blocks_before.contains(name);
    let counts = |status: &VersionBlockStatus, warns: bool| Counts {
        warns,
        matched: status.matched,
        blocked: status.blocked,
        accepted: status.accepted,
    };
    let of = |plan: &Plan, name: &String| plan.blocks.get(name).cloned();
    names
        .into_iter()
        .filter_map(|name| {
            let before =
                before.and_then(|plan| of(plan, name)).map(|status| counts(&status, warned_before(name)));
            let after = of(&sides.after, name).map(|status| counts(&status, warns(name)));
            let change = match (&before, &after) {
                (None, _) => Change::Added,
                (_, None) => Change::Removed,
                (Some(before), Some(after)) if before == after => return None,
                _ => Change::Changed,
            };
            Some(BlockChange { block: name.clone(), change, before, after })
        })
        .collect()
}

fn hide_random_name(change: &mut InstanceChange, sides: &Sides) {
    let Ok(id) = change.instance.parse::<InstanceId>() else { return };
    let label = planner::random_label(&sides.settings.seed, &id);
    let hide = |text: &mut String| {
        if text.contains(&label) {
            *text = text.replace(&label, RANDOM);
        }
    };
    change.url.iter_mut().for_each(hide);
    for member in &mut change.members {
        hide(&mut member.before);
        hide(&mut member.after);
    }
    change.disconnects.iter_mut().chain(&mut change.refused).for_each(|reason| hide(&mut reason.message));
    change.conflicts.iter_mut().for_each(hide);
}
