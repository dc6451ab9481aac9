//! Who gets which name and key, as a step of a plan in the making: labels given up, contests, and each one's share.

use imbl::ordmap::DiffItem;
use resources::Timestamp;
use route_table::{Fingerprint, HostName, InstanceId};

use crate::beside::Beside;
use crate::claims::{Claimant, Decision, winner};
use crate::custom_domains::{Standing, standing};
use crate::fresh::Wished;
use crate::halves::in_halves;
use crate::instance::Shares;
use crate::inventory::{Proof, ReleasedLabel};
use crate::making::Making;
use crate::names::{AskedLabel, looks_random};
use crate::outcome::{DomainIs, DomainOutcome, LabelOutcome};
use crate::previous::{Entry, label_of};
use crate::scope::key;
use crate::wish::Wish;

const SECONDS_A_DAY: i64 = 86_400;

impl Making<'_> {
    /// Finds labels that were given up, and those whose quarantine is over.
    ///
    /// The list is this planner's; what is given with the facts counts as edits of it, since what was planned a moment
    /// ago may not have come back yet.
    pub(crate) fn release_labels(&mut self) {
        let before = &self.previous.released;
        let mut released = before.clone();
        for change in self.previous.released_given.diff(&self.inventory.facts.released) {
            match change {
                DiffItem::Add(label, entry) | DiffItem::Update { new: (label, entry), .. } => {
                    released.insert(label.clone(), entry.clone());
                }
                DiffItem::Remove(label, _) => {
                    released.remove(label);
                }
            }
        }
        for (label, by) in in_halves(self.fresh.all(), |part| self.given_up(part)).into_iter().flatten() {
            released.insert(label, ReleasedLabel { by, at: self.now });
        }
        let over = |entry: &ReleasedLabel| self.quarantined_until(entry) <= self.now;
        let ended: Vec<String> =
            released.iter().filter(|(_, entry)| over(entry)).map(|(label, _)| label.clone()).collect();
        for label in &ended {
            released.remove(label);
        }
        for change in before.diff(&released) {
            let label = key(&change);
            self.touched_names.extend(self.inventory.settings.spec.domain.with_label(label).ok());
        }
        self.released = released;
    }

    /// Labels that led to instances whose objects do not ask for them any more.
    fn given_up(&self, part: &[Wished]) -> Vec<(String, InstanceId)> {
        let all_from = part.first().map(|(first, _)| first).filter(|_| self.scope.objects.is_none());
        let mut entries = Beside::remembered(&self.previous.entries, all_from);
        let mut given_up = Vec::new();
        for (id, wish) in part {
            let Some(entry) = entries.get(id) else { continue };
            let claimed = wish.as_ref().and_then(|wish| wish.claimed_label());
            let claimed = claimed.map(|claimed| label_of(claimed.as_str()));
            // What looks like a random label is the instance's own: nobody can ask for one.
            let held = entry.held_labels().filter(|label| Some(*label) != claimed && !looks_random(label));
            given_up.extend(held.map(|label| (label.to_owned(), id.clone())));
        }
        given_up
    }

    fn quarantined_until(&self, entry: &ReleasedLabel) -> Timestamp {
        let days = i64::from(self.inventory.settings.spec.quarantine_days);
        entry.at.plus_seconds(days.saturating_mul(SECONDS_A_DAY))
    }

    /// Decides about contested names and keys, and finds out whom that concerns.
    pub(crate) fn settle_claims(&mut self) {
        let mut concerned = Vec::new();
        let names: Vec<HostName> = std::mem::take(&mut self.touched_names).into_iter().collect();
        let decided = in_halves(&names, |part| {
            let decide = |name: &HostName| {
                let claimants = self.names.claimants(name);
                let decision = self.decide_name(name, &claimants);
                (claimants, decision)
            };
            part.iter().map(decide).collect::<Vec<_>>()
        });
        for (name, (claimants, decision)) in names.iter().zip(decided.into_iter().flatten()) {
            // One claimant alone has nothing to remember; it is concerned by what happened to the name.
            if self.names.decide(name, decision) || claimants.len() == 1 {
                concerned.extend(claimants);
            }
        }
        for key in std::mem::take(&mut self.touched_keys) {
            let claimants = self.keys.claimants(&key);
            if let Some(decision) = self.decide_key(&key, &claimants)
                && (self.keys.decide(&key, decision) || claimants.len() == 1)
            {
                concerned.extend(claimants);
            }
        }
        if let Some(instances) = &mut self.scope.instances {
            instances.extend(concerned);
        }
    }

    fn claimant<'b>(&'b self, id: &'b InstanceId, holds: impl Fn(&Entry) -> bool) -> Claimant<'b> {
        let holds = self.previous.entries.get(id).is_some_and(|entry| holds(entry));
        Claimant { id, holds, created: self.wish(id).and_then(|wish| wish.created()) }
    }

    /// Who gets a name.
    ///
    /// | name | case | decision |
    /// |---|---|---|
    /// | label | somebody holds it | by the conflict rule |
    /// | label | given up, quarantined, the one who had it asks again | that one |
    /// | label | given up, quarantined, only others ask | nobody until the quarantine ends |
    /// | label | else | by the conflict rule |
    /// | domain | nobody has a proof | nobody |
    /// | domain | some have a proof | by the conflict rule among these |
    fn decide_name(&self, name: &HostName, claimants: &[InstanceId]) -> Decision {
        let held = |winner: Option<&InstanceId>| winner.cloned().map_or(Decision::Open, Decision::Held);
        if !name.is_at_or_below(&self.inventory.settings.spec.domain) {
            let proven = claimants.iter().filter(|id| self.standing(name, id).serves());
            return held(winner(proven.map(|id| self.claimant(id, |entry| entry.serves_domain(name)))));
        }
        let label = label_of(name.as_str());
        let holds = |entry: &Entry| entry.held_labels().any(|held| held == label);
        let all = || claimants.iter().map(|id| self.claimant(id, holds));
        match self.released.get(label) {
            Some(entry) if !all().any(|claimant| claimant.holds) => {
                if claimants.contains(&entry.by) {
                    Decision::Held(entry.by.clone())
                } else {
                    Decision::Quarantined { by: entry.by.clone(), until: self.quarantined_until(entry) }
                }
            }
            Some(_) | None => held(winner(all())),
        }
    }

    /// The same where only one asks.
    fn decide_alone(&self, name: &HostName, id: &InstanceId) -> Decision {
        let label = name.is_at_or_below(&self.inventory.settings.spec.domain);
        if label && (self.released.is_empty() || !self.released.contains_key(label_of(name.as_str()))) {
            Decision::Held(id.clone())
        } else {
            self.decide_name(name, std::slice::from_ref(id))
        }
    }

    fn decide_key(&self, key: &Fingerprint, claimants: &[InstanceId]) -> Option<Decision> {
        winner(claimants.iter().map(|id| self.claimant(id, |entry| entry.has_key(key))))
            .cloned()
            .map(Decision::Held)
    }

    fn proof(&self, domain: &HostName, id: &InstanceId) -> Option<&Proof> {
        self.inventory.facts.proofs.get(&(domain.clone(), id.clone()))
    }

    fn standing(&self, domain: &HostName, id: &InstanceId) -> Standing {
        let served = self.previous.entries.get(id).is_some_and(|entry| entry.serves_domain(domain));
        standing(self.proof(domain, id), served)
    }

    /// What of its wishes an instance gets.
    pub(crate) fn shares(&self, wish: &Wish) -> Shares {
        let id = &wish.id;
        let decision = |name: &HostName| {
            let known = self.names.decision(name).cloned();
            known.unwrap_or_else(|| self.decide_alone(name, id))
        };
        let label = wish.label.as_ref().map(|asked| match asked {
            AskedLabel::Refused { name, why } => {
                LabelOutcome::Refused { name: name.clone(), why: why.clone() }
            }
            AskedLabel::Claimed(name) => match decision(name) {
                Decision::Held(holder) if holder == *id => LabelOutcome::Held(name.clone()),
                Decision::Held(by) => LabelOutcome::Taken { name: name.clone(), by },
                Decision::Quarantined { by, until } => {
                    LabelOutcome::Quarantined { name: name.clone(), by, until }
                }
                Decision::Open => {
                    LabelOutcome::Refused { name: name.to_string(), why: "nobody has it".to_owned() }
                }
            },
        });
        let domains = wish.domains.iter().map(|asked| {
            let is = if asked.ours {
                DomainIs::Refused
            } else {
                match decision(&asked.name) {
                    Decision::Held(holder) if holder != *id => DomainIs::Taken(holder),
                    _ => DomainIs::Ours(self.standing(&asked.name, id)),
                }
            };
            let proof = self.proof(&asked.name, id);
            DomainOutcome {
                name: asked.name.clone(),
                is,
                missing_since: proof.and_then(|proof| proof.missing_since),
                trouble: proof.and_then(|proof| proof.trouble.clone()),
            }
        });
        let foreign = |key: &Fingerprint| match self.keys.decision(key) {
            Some(Decision::Held(holder)) if holder != id => Some((*key, holder.clone())),
            _ => None,
        };
        Shares {
            label,
            domains: domains.collect(),
            foreign_keys: wish.keys.iter().filter_map(foreign).collect(),
        }
    }

    /// Drops released labels that somebody has again.
    pub(crate) fn keep_released(&mut self) {
        let domain = &self.inventory.settings.spec.domain;
        let held = |label: &String| {
            let Ok(name) = domain.with_label(label) else { return false };
            let claimants = self.names.claimants(&name);
            claimants.iter().filter_map(|id| self.entries.get(id)).any(|entry| {
                let mut labels = entry.held_labels();
                labels.any(|held| held == label)
            })
        };
        let again: Vec<String> = self.released.keys().filter(|label| held(label)).cloned().collect();
        for label in again {
            self.released.remove(&label);
        }
    }
}
