//! A plan in the making: the steps that `plan` takes, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use resources::{Observed, RemoteInstance, RemoteInstanceStatus, Timestamp, VersionBlockStatus};

use route_table::{Fingerprint, HostName, InstanceId, Route};

use crate::beside::Beside;
use crate::blocks::{Blocks, Judge, Tally};
use crate::claims::{Claimant, Claims, Decision, winner};
use crate::conditions::AlikeConditions;
use crate::custom_domains::{Standing, standing};
use crate::events::{Event, block_event, instance_events};
use crate::halves::in_halves;
use crate::instance::{Circumstances, Shares, decide};
use crate::inventory::{Inventory, Proof, ReleasedLabel};
use crate::names::{AskedLabel, NameMaker, looks_random};
use crate::outcome::{DomainIs, DomainOutcome, LabelOutcome};
use crate::plan::Plan;
use crate::previous::{Entry, Previous, WorkedOut, label_of};
use crate::scope::{Scope, key};
use crate::status::block_status;
use crate::wish::Wish;

const SECONDS_A_DAY: i64 = 86_400;

/// A plan in the making.
pub(crate) struct Making<'a> {
    inventory: &'a Inventory,
    previous: &'a Previous,
    now: Timestamp,
    seed_names: NameMaker,
    blocks: Arc<Blocks>,
    scope: Scope,
    /// What objects that were read again ask for; `None` for those that are gone or not ours.
    fresh: BTreeMap<InstanceId, Option<Arc<Wish>>>,
    names: Claims<HostName>,
    keys: Claims<Fingerprint>,
    touched_names: BTreeSet<HostName>,
    touched_keys: BTreeSet<Fingerprint>,
    released: OrdMap<String, ReleasedLabel>,
    entries: OrdMap<InstanceId, Arc<Entry>>,
    routes: OrdMap<InstanceId, Arc<Route>>,
    instances: OrdMap<InstanceId, Arc<RemoteInstanceStatus>>,
    tallies: Vec<Tally>,
    look_again: OrdSet<(Timestamp, InstanceId)>,
    new_routes: Vec<InstanceId>,
    routes_differ: bool,
    events: Vec<Event>,
}

impl<'a> Making<'a> {
    /// Finds out what has to be looked at.
    pub(crate) fn begin(inventory: &'a Inventory, previous: &'a Previous, now: Timestamp) -> Self {
        let known = previous.worked_out.as_ref();
        let same_blocks = known.is_some_and(|known| known.inventory.blocks.ptr_eq(&inventory.blocks))
            || known.is_some_and(|known| known.inventory.blocks.diff(&inventory.blocks).next().is_none());
        let blocks = if same_blocks {
            Arc::clone(&previous.blocks)
        } else {
            Arc::new(Blocks::read(&inventory.blocks, &previous.blocks))
        };
        let mut scope =
            known.map_or_else(Scope::everything, |known| Scope::of(known, previous, inventory, now));
        if !same_blocks {
            scope.instances = None;
        }
        let recount = scope.instances.is_none();
        Self {
            seed_names: NameMaker::new(&inventory.settings.seed),
            names: known.map(|known| known.names.clone()).unwrap_or_default(),
            keys: known.map(|known| known.keys.clone()).unwrap_or_default(),
            tallies: match known {
                Some(known) if !recount => known.tallies.to_vec(),
                _ => vec![Tally::default(); blocks.len()],
            },
            look_again: known.map(|known| known.look_again.clone()).unwrap_or_default(),
            entries: previous.entries.clone(),
            routes: previous.routes.clone(),
            instances: previous.instances.clone(),
            touched_names: std::mem::take(&mut scope.names),
            fresh: BTreeMap::new(),
            touched_keys: BTreeSet::new(),
            released: OrdMap::new(),
            new_routes: Vec::new(),
            routes_differ: false,
            events: Vec::new(),
            inventory,
            previous,
            now,
            blocks,
            scope,
        }
    }

    /// Reads objects, and enters what they claim.
    pub(crate) fn read_objects(&mut self) {
        match self.scope.objects.clone() {
            None => self.read_all(),
            Some(some) => some.iter().for_each(|id| self.read_again(id)),
        }
    }

    fn read_all(&mut self) {
        let objects: Vec<_> = self.inventory.instances.iter().collect();
        let (inventory, previous, seed_names) = (self.inventory, self.previous, &self.seed_names);
        let wishes = in_halves(&objects, |part| {
            let Some((first, _)) = part.first() else { return Vec::new() };
            let mut before = Beside::from(first, &previous.entries);
            let read = |(id, object): &(&InstanceId, &Arc<Observed<RemoteInstance>>)| {
                let before = before.get(id).and_then(|entry| entry.wish.as_deref());
                Wish::read(&inventory.settings, seed_names, id, object, before).map(Arc::new)
            };
            part.iter().map(read).collect()
        });
        let (mut names, mut keys) = (Vec::new(), Vec::new());
        for wish in wishes.iter().flatten() {
            names.extend(wish.claimed_names().map(|name| (name.clone(), wish.id.clone())));
            keys.extend(wish.keys.iter().map(|key| (*key, wish.id.clone())));
        }
        let ids = inventory.instances.keys().cloned();
        let mut fresh: BTreeMap<_, _> = ids.zip(wishes).collect();
        if let Some(first) = inventory.instances.keys().next() {
            let mut here = Beside::from(first, &inventory.instances);
            let gone = previous.entries.keys().filter(|id| here.get(id).is_none());
            fresh.extend(gone.map(|id| (id.clone(), None)));
        } else {
            fresh.extend(previous.entries.keys().map(|id| (id.clone(), None)));
        }
        self.fresh = fresh;
        self.names = Claims::gather(names);
        self.keys = Claims::gather(keys);
        self.touched_names = self.names.contested().into_iter().collect();
        self.touched_keys = self.keys.contested().into_iter().collect();
    }

    fn read_again(&mut self, id: &InstanceId) {
        let wish = self.read(id);
        if let Some(before) = self.previous.entries.get(id).and_then(|entry| entry.wish.clone()) {
            for name in before.claimed_names() {
                self.names.remove(name, id);
                self.touched_names.insert(name.clone());
            }
            for key in &before.keys {
                self.keys.remove(key, id);
                self.touched_keys.insert(*key);
            }
        }
        if let Some(wish) = &wish {
            for name in wish.claimed_names() {
                self.names.add(name, id);
                self.touched_names.insert(name.clone());
            }
            for key in &wish.keys {
                self.keys.add(key, id);
                self.touched_keys.insert(*key);
            }
        }
        self.fresh.insert(id.clone(), wish);
    }

    fn read(&self, id: &InstanceId) -> Option<Arc<Wish>> {
        let object = self.inventory.instances.get(id)?;
        let before = self.previous.entries.get(id).and_then(|entry| entry.wish.as_deref());
        Wish::read(&self.inventory.settings, &self.seed_names, id, object, before).map(Arc::new)
    }

    fn wish(&self, id: &InstanceId) -> Option<&Arc<Wish>> {
        match self.fresh.get(id) {
            Some(fresh) => fresh.as_ref(),
            None => self.previous.entries.get(id)?.wish.as_ref(),
        }
    }

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
        let mut entries = match self.fresh.keys().next() {
            Some(first) if self.scope.objects.is_none() => Beside::from(first, &self.previous.entries),
            _ => Beside::Search(&self.previous.entries),
        };
        for (id, wish) in &self.fresh {
            let Some(entry) = entries.get(id) else { continue };
            let claimed = wish.as_ref().and_then(|wish| wish.claimed_label());
            // What looks like a random label is the instance's own: nobody can ask for one.
            for label in entry.held_labels().filter(|label| !looks_random(label)) {
                if claimed.is_none_or(|claimed| label_of(claimed.as_str()) != label) {
                    released.insert(label.to_owned(), ReleasedLabel { by: id.clone(), at: self.now });
                }
            }
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

    fn quarantined_until(&self, entry: &ReleasedLabel) -> Timestamp {
        let days = i64::from(self.inventory.settings.spec.quarantine_days);
        entry.at.plus_seconds(days.saturating_mul(SECONDS_A_DAY))
    }

    /// Decides about contested names and keys, and finds out whom that concerns.
    pub(crate) fn settle_claims(&mut self) {
        let mut concerned = BTreeSet::new();
        for name in std::mem::take(&mut self.touched_names) {
            let claimants = self.names.claimants(&name);
            let decision = self.decide_name(&name, &claimants);
            // One claimant alone has nothing to remember; it is concerned by what happened to the name.
            if self.names.decide(&name, decision) || claimants.len() == 1 {
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
    fn shares(&self, wish: &Wish) -> Shares {
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

    /// Decides about every instance that something has changed for.
    pub(crate) fn decide_instances(&mut self) {
        let recount = self.scope.instances.is_none();
        let wishes: Vec<(InstanceId, Option<Arc<Wish>>)> = match self.scope.instances.take() {
            Some(some) => some.into_iter().map(|id| (id.clone(), self.wish(&id).cloned())).collect(),
            None if self.scope.objects.is_none() => {
                self.fresh.iter().map(|(id, wish)| (id.clone(), wish.clone())).collect()
            }
            None => {
                let known = self.previous.entries.iter().map(|(id, entry)| (id.clone(), entry.wish.clone()));
                let fresh = self.fresh.iter().map(|(id, wish)| (id.clone(), wish.clone()));
                known.chain(fresh).collect::<BTreeMap<_, _>>().into_iter().collect()
            }
        };
        let decided = in_halves(&wishes, |part| self.decide_part(part, recount));
        let blocks = Arc::clone(&self.blocks);
        for ((id, _), (before, entry)) in wishes.into_iter().zip(decided) {
            if let Some(before) = before.filter(|_| !recount) {
                before.count(&mut self.tallies, &blocks, -1);
            }
            if let Some(entry) = &entry {
                entry.count(&mut self.tallies, &blocks, 1);
            }
            self.enter(id, before, entry);
        }
    }

    /// Decides about some instances, in the order of their ids: what was decided before, and what now.
    fn decide_part(
        &self,
        part: &[(InstanceId, Option<Arc<Wish>>)],
        all: bool,
    ) -> Vec<(Option<&'a Entry>, Option<Entry>)> {
        let (inventory, previous): (&'a Inventory, &'a Previous) = (self.inventory, self.previous);
        let Some((first, _)) = part.first() else { return Vec::new() };
        let (mut reports, mut entries) = if all {
            (Beside::from(first, &inventory.facts.reports), Beside::from(first, &previous.entries))
        } else {
            (Beside::Search(&inventory.facts.reports), Beside::Search(&previous.entries))
        };
        let mut judge = Judge::new(&self.blocks, inventory.settings.spec.unknown_version);
        let mut alike = AlikeConditions::default();
        let given = Circumstances {
            settings: &inventory.settings,
            names: &self.seed_names,
            blocks: &self.blocks,
            applied: inventory.facts.applied,
            next_revision: previous.revision.saturating_add(1),
            now: self.now,
        };
        let decide_one = |(id, wish): &(InstanceId, Option<Arc<Wish>>)| {
            let before = entries.get(id).map(|before| &**before);
            let reported = reports.get(id);
            let entry = wish.as_ref().map(|wish| {
                decide(&given, &mut judge, &mut alike, wish, self.shares(wish), reported, before)
            });
            (before, entry)
        };
        part.iter().map(decide_one).collect()
    }

    /// Puts what was decided about an instance into the plan.
    fn enter(&mut self, id: InstanceId, before: Option<&Entry>, entry: Option<Entry>) {
        if let Some(at) = before.and_then(|before| before.look_again) {
            self.look_again.remove(&(at, id.clone()));
        }
        let route_before = before.and_then(|before| before.route.as_ref());
        let Some(entry) = entry else {
            self.routes_differ |= route_before.is_some();
            self.entries.remove(&id);
            self.routes.remove(&id);
            self.instances.remove(&id);
            return;
        };
        if let Some(at) = entry.look_again {
            self.look_again.insert((at, id.clone()));
        }
        let same_route = match (route_before, &entry.route) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        if !same_route {
            self.routes_differ = true;
            match &entry.route {
                Some(route) => {
                    self.new_routes.push(id.clone());
                    self.routes.insert(id.clone(), Arc::clone(route));
                }
                None => {
                    self.routes.remove(&id);
                }
            }
        }
        if before.is_none_or(|before| !Arc::ptr_eq(&before.status, &entry.status)) {
            self.events.extend(instance_events(&id, before.map(|before| &*before.status), &entry.status));
            self.instances.insert(id.clone(), Arc::clone(&entry.status));
        }
        self.entries.insert(id, Arc::new(entry));
    }

    /// Drops released labels that somebody has again.
    fn keep_released(&mut self) {
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

    /// The plan, and what the next one may use.
    pub(crate) fn finish(mut self) -> (Plan, Previous) {
        self.keep_released();
        let revision = if self.routes_differ || !self.previous.planned {
            self.previous.revision.saturating_add(1)
        } else {
            self.previous.revision
        };
        let block_statuses = self.block_statuses();
        let not_applied = self.not_applied(revision);
        let plan = Plan {
            revision,
            routes: self.routes,
            instances: self.instances,
            blocks: block_statuses,
            events: self.events,
            released: self.released,
            next_run: self.look_again.get_min().map(|(at, _)| *at),
        };
        let previous = Previous {
            revision,
            planned: true,
            entries: self.entries,
            routes: plan.routes.clone(),
            instances: plan.instances.clone(),
            block_statuses: plan.blocks.clone(),
            released: plan.released.clone(),
            released_given: self.inventory.facts.released.clone(),
            blocks: self.blocks,
            worked_out: Some(WorkedOut {
                inventory: self.inventory.clone(),
                names: self.names,
                keys: self.keys,
                tallies: self.tallies.into(),
                not_applied,
                look_again: self.look_again,
            }),
        };
        (plan, previous)
    }

    fn block_statuses(&mut self) -> OrdMap<String, Arc<VersionBlockStatus>> {
        let mut statuses = OrdMap::new();
        for (block, tally) in self.blocks.iter().zip(&self.tallies) {
            let before = self.previous.block_statuses.get(&*block.name);
            let status = block_status(block, *tally, before.map(|before| &**before), self.now);
            self.events.extend(block_event(&block.name, before.map(|before| &**before), &status));
            let same = before.filter(|before| ***before == status);
            let status = same.map_or_else(|| Arc::new(status), Arc::clone);
            statuses.insert(block.name.to_string(), status);
        }
        statuses
    }

    /// Whose route not every proxy has, by the revision that brought it.
    fn not_applied(&self, revision: u64) -> OrdMap<u64, Arc<[InstanceId]>> {
        let applied = self.inventory.facts.applied.revision.unwrap_or_default();
        let known = self.previous.worked_out.as_ref();
        let forgotten = known.is_none_or(|known| {
            self.inventory.facts.applied.revision < known.inventory.facts.applied.revision
        });
        let mut waiting: OrdMap<u64, Arc<[InstanceId]>> = if forgotten {
            let mut by_revision: BTreeMap<u64, Vec<InstanceId>> = BTreeMap::new();
            for (id, entry) in &self.entries {
                if entry.route_revision > applied {
                    by_revision.entry(entry.route_revision).or_default().push(id.clone());
                }
            }
            by_revision.into_iter().map(|(revision, ids)| (revision, Arc::from(ids))).collect()
        } else {
            known.map(|known| known.not_applied.clone()).unwrap_or_default()
        };
        while let Some(done) =
            waiting.get_min().map(|(revision, _)| *revision).filter(|done| *done <= applied)
        {
            waiting.remove(&done);
        }
        if revision > applied && !forgotten && !self.new_routes.is_empty() {
            waiting.insert(revision, self.new_routes.clone().into());
        }
        waiting
    }
}
