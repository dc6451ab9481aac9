//! What a plan has to look at again.

use std::collections::BTreeSet;

use imbl::ordmap::DiffItem;
use resources::Timestamp;
use route_table::{HostName, InstanceId};

use crate::inventory::{Applied, Inventory};
use crate::previous::{Previous, WorkedOut};

/// What has to be looked at again.
///
/// | what changed | objects read again | names decided again | instances decided again |
/// |---|---|---|---|
/// | nothing is known, or settings | all | all | all |
/// | an object | it | those it claims or claimed | it, and who wins or loses by it |
/// | a proof | none | its domain | its instance, and who wins or loses by it |
/// | a report | none | none | its instance |
/// | a released label | none | the label | who wins or loses by it |
/// | version blocks | none | none | all |
/// | proxies applied more revisions | none | none | those whose route came with them |
/// | proxies came back from a later revision, or the first came, or the last went | none | none | all |
/// | time | none | names somebody waits for | those who wait |
#[derive(Debug)]
pub(crate) struct Scope {
    /// Objects to be read again; `None` means all.
    pub(crate) objects: Option<BTreeSet<InstanceId>>,
    /// Instances to be decided again, besides those that turn out to be concerned; `None` means all.
    pub(crate) instances: Option<BTreeSet<InstanceId>>,
    /// Names to be decided again, besides those of the objects.
    pub(crate) names: BTreeSet<HostName>,
}

impl Scope {
    pub(crate) fn everything() -> Self {
        Self { objects: None, instances: None, names: BTreeSet::new() }
    }

    /// What changed since the plan before. Whether version blocks did is the caller's to add.
    pub(crate) fn of(known: &WorkedOut, previous: &Previous, inventory: &Inventory, now: Timestamp) -> Self {
        let Inventory { settings, instances, blocks: _, facts } = inventory;
        let before = &known.inventory;
        if before.settings != *settings {
            return Self::everything();
        }
        let objects: BTreeSet<InstanceId> =
            before.instances.diff(instances).map(|change| key(&change).clone()).collect();
        let mut concerned = objects.clone();
        let mut names = BTreeSet::new();
        concerned.extend(before.facts.reports.diff(&facts.reports).map(|change| key(&change).clone()));
        for change in before.facts.proofs.diff(&facts.proofs) {
            let (domain, id) = key(&change);
            names.insert(domain.clone());
            concerned.insert(id.clone());
        }
        for (at, id) in &known.look_again {
            if *at > now {
                break;
            }
            concerned.insert(id.clone());
            let wish = previous.entries.get(id).and_then(|entry| entry.wish.as_ref());
            names.extend(wish.and_then(|wish| wish.claimed_label()).cloned());
        }
        let instances = if forgotten(before.facts.applied, facts.applied) {
            None
        } else {
            let applied = facts.applied.revision.unwrap_or_default();
            let due = known.not_applied.iter().take_while(|(revision, _)| **revision <= applied);
            concerned.extend(due.flat_map(|(_, ids)| ids.iter().cloned()));
            Some(concerned)
        };
        Self { objects: Some(objects), instances, names }
    }
}

/// Can what is in force have become less for routes that were in force?
fn forgotten(before: Applied, now: Applied) -> bool {
    (before.ready_proxies == 0) != (now.ready_proxies == 0) || now.revision < before.revision
}

pub(crate) fn key<'a, K, V>(change: &DiffItem<'a, 'a, K, V>) -> &'a K {
    match change {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => key,
    }
}
