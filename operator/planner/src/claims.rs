//! Who gets what only one can have: a label, a custom domain, an agent key.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::RandomState;
use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;
use resources::Timestamp;
use route_table::InstanceId;

use crate::ordered::Ordered;

/// Somebody who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claimant<'a> {
    pub(crate) id: &'a InstanceId,
    /// Did the plan before give it to this one?
    pub(crate) holds: bool,
    /// When its object was made.
    pub(crate) created: Option<Timestamp>,
}

/// The one who gets it.
///
/// | claimants | winner |
/// |---|---|
/// | one holds it | the holder |
/// | none holds it | the older object |
/// | none holds it, one has no creation time | the one that has |
/// | none holds it, equally old | by `namespace/name` |
///
/// Whether somebody may be considered at all (a proven domain, a quarantined label) is decided before.
pub(crate) fn winner<'a>(claimants: impl Iterator<Item = Claimant<'a>>) -> Option<&'a InstanceId> {
    let rank = |each: &Claimant<'a>| (!each.holds, each.created.map_or(i64::MAX, |time| time.0), each.id);
    claimants.min_by_key(rank).map(|winner| winner.id)
}

/// What was decided about a name or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// This one has it.
    Held(InstanceId),
    /// Nobody has it yet: the domain is proven by none.
    Open,
    /// The label was given up, and is kept for the one who had it.
    Quarantined {
        /// Who had it.
        by: InstanceId,
        /// Until when.
        until: Timestamp,
    },
}

/// Who claims what. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Claims<K: Ord> {
    /// What is claimed by one, which is almost everything. About that nothing needs to be remembered.
    alone: Ordered<K, InstanceId>,
    /// What is claimed by several. By hash, since for every claim of every instance it is asked whether it is here.
    contests: GenericHashMap<K, Arc<Contest>, RandomState, DefaultSharedPtr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Contest {
    claimants: BTreeSet<InstanceId>,
    /// `None` until it was decided for the first time.
    decision: Option<Decision>,
}

impl<K: Ord> Default for Claims<K> {
    fn default() -> Self {
        Self { alone: Ordered::default(), contests: GenericHashMap::default() }
    }
}

impl<K: Ord + Hash + Clone> Claims<K> {
    /// All claims at once.
    pub(crate) fn gather(claims: Vec<(K, InstanceId)>) -> Self {
        let mut claims = claims;
        claims.sort_unstable();
        let (mut alone, mut contests) = (Vec::with_capacity(claims.len()), GenericHashMap::default());
        let mut rest = claims.into_iter().peekable();
        while let Some((key, first)) = rest.next() {
            let mut others = BTreeSet::new();
            while let Some((_, other)) = rest.next_if(|(next, _)| *next == key) {
                others.insert(other);
            }
            if others.is_empty() {
                alone.push((key, first));
            } else {
                others.insert(first);
                contests.insert(key, Arc::new(Contest { claimants: others, decision: None }));
            }
        }
        Self { alone: Ordered::of(alone), contests }
    }

    pub(crate) fn add(&mut self, key: &K, id: &InstanceId) {
        if let Some(contest) = self.contests.get_mut(key) {
            Arc::make_mut(contest).claimants.insert(id.clone());
            return;
        }
        match self.alone.get(key) {
            None => self.alone.insert(key.clone(), id.clone()),
            Some(known) if known == id => {}
            Some(known) => {
                let claimants = [known.clone(), id.clone()].into_iter().collect();
                self.alone.remove(key);
                self.contests.insert(key.clone(), Arc::new(Contest { claimants, decision: None }));
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K, id: &InstanceId) {
        let Some(contest) = self.contests.get_mut(key) else {
            if self.alone.get(key) == Some(id) {
                self.alone.remove(key);
            }
            return;
        };
        let claimants = &mut Arc::make_mut(contest).claimants;
        claimants.remove(id);
        if claimants.len() == 1
            && let Some(last) = claimants.pop_first()
        {
            self.contests.remove(key);
            self.alone.insert(key.clone(), last);
        }
    }

    /// Everybody who claims it, in the order of their ids.
    pub(crate) fn claimants(&self, key: &K) -> Vec<InstanceId> {
        match self.contests.get(key) {
            Some(contest) => contest.claimants.iter().cloned().collect(),
            None => self.alone.get(key).cloned().into_iter().collect(),
        }
    }

    /// What was decided, where several claim it.
    pub(crate) fn decision(&self, key: &K) -> Option<&Decision> {
        self.contests.get(key)?.decision.as_ref()
    }

    /// Remembers what was decided where several claim it; says whether that is another decision than before.
    pub(crate) fn decide(&mut self, key: &K, decision: Decision) -> bool {
        if self.decision(key) == Some(&decision) {
            return false;
        }
        let Some(contest) = self.contests.get_mut(key) else { return false };
        Arc::make_mut(contest).decision = Some(decision);
        true
    }

    /// What several claim.
    pub(crate) fn contested(&self) -> BTreeSet<K> {
        self.contests.keys().cloned().collect()
    }
}
