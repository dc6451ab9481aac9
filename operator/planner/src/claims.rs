//! Who gets what only one can have: a label, a custom domain, an agent key.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use resources::Timestamp;
use route_table::InstanceId;

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
    by_key: OrdMap<K, Claim>,
}

/// Almost everything is claimed by one; about that nothing needs to be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Claim {
    One(InstanceId),
    Several(Arc<Contest>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Contest {
    claimants: OrdSet<InstanceId>,
    /// `None` until it was decided for the first time.
    decision: Option<Decision>,
}

impl<K: Ord> Default for Claims<K> {
    fn default() -> Self {
        Self { by_key: OrdMap::default() }
    }
}

impl<K: Ord + Clone> Claims<K> {
    /// All claims at once.
    pub(crate) fn gather(claims: Vec<(K, InstanceId)>) -> Self {
        let mut claims = claims;
        claims.sort_unstable();
        let mut gathered = Self::default();
        let mut rest = claims.into_iter().peekable();
        while let Some((key, first)) = rest.next() {
            let mut others = OrdSet::new();
            while let Some((_, other)) = rest.next_if(|(next, _)| *next == key) {
                others.insert(other);
            }
            let claim = if others.is_empty() {
                Claim::One(first)
            } else {
                others.insert(first);
                Claim::Several(Arc::new(Contest { claimants: others, decision: None }))
            };
            gathered.by_key.insert(key, claim);
        }
        gathered
    }

    pub(crate) fn add(&mut self, key: &K, id: &InstanceId) {
        let claim = match self.by_key.get(key) {
            None => Claim::One(id.clone()),
            Some(Claim::One(known)) if known == id => return,
            Some(Claim::One(known)) => {
                let claimants = [known.clone(), id.clone()].into_iter().collect();
                Claim::Several(Arc::new(Contest { claimants, decision: None }))
            }
            Some(Claim::Several(contest)) => {
                let claimants = contest.claimants.update(id.clone());
                Claim::Several(Arc::new(Contest { claimants, decision: contest.decision.clone() }))
            }
        };
        self.by_key.insert(key.clone(), claim);
    }

    pub(crate) fn remove(&mut self, key: &K, id: &InstanceId) {
        match self.by_key.get(key) {
            Some(Claim::One(known)) if known == id => {
                self.by_key.remove(key);
            }
            Some(Claim::Several(contest)) => {
                let claimants = contest.claimants.without(id);
                let claim = match (claimants.len(), claimants.get_min()) {
                    (1, Some(last)) => Claim::One(last.clone()),
                    _ => Claim::Several(Arc::new(Contest { claimants, decision: contest.decision.clone() })),
                };
                self.by_key.insert(key.clone(), claim);
            }
            Some(Claim::One(_)) | None => {}
        }
    }

    /// Everybody who claims it, in the order of their ids.
    pub(crate) fn claimants(&self, key: &K) -> Vec<InstanceId> {
        match self.by_key.get(key) {
            None => Vec::new(),
            Some(Claim::One(only)) => vec![only.clone()],
            Some(Claim::Several(contest)) => contest.claimants.iter().cloned().collect(),
        }
    }

    /// What was decided, where several claim it.
    pub(crate) fn decision(&self, key: &K) -> Option<&Decision> {
        match self.by_key.get(key) {
            Some(Claim::Several(contest)) => contest.decision.as_ref(),
            Some(Claim::One(_)) | None => None,
        }
    }

    /// Remembers what was decided where several claim it; says whether that is another decision than before.
    pub(crate) fn decide(&mut self, key: &K, decision: Decision) -> bool {
        match self.by_key.get(key) {
            Some(Claim::Several(contest)) if contest.decision.as_ref() != Some(&decision) => {
                let claimants = contest.claimants.clone();
                let decided = Claim::Several(Arc::new(Contest { claimants, decision: Some(decision) }));
                self.by_key.insert(key.clone(), decided);
                true
            }
            Some(Claim::One(_) | Claim::Several(_)) | None => false,
        }
    }

    /// What several claim.
    pub(crate) fn contested(&self) -> Vec<K> {
        let several = |(key, claim): (&K, &Claim)| matches!(claim, Claim::Several(_)).then(|| key.clone());
        self.by_key.iter().filter_map(several).collect()
    }
}
