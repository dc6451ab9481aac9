//! A plan in the making: the steps that `plan` takes, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use resources::{Observed, RemoteInstance, RemoteInstanceStatus, Timestamp, VersionBlockStatus};

use route_table::{Fingerprint, HostName, InstanceId, Route};

use crate::beside::Beside;
use crate::blocks::{Blocks, Judge, Tally};
use crate::claims::Claims;
use crate::conditions::AlikeConditions;
use crate::events::{Event, block_event, instance_events};
use crate::fresh::Fresh;
use crate::halves::{both, in_halves};
use crate::instance::{Circumstances, decide};
use crate::inventory::{Inventory, ReleasedLabel};
use crate::names::NameMaker;
use crate::plan::Plan;
use crate::previous::{Entry, Previous, WorkedOut};
use crate::scope::Scope;
use crate::status::block_status;
use crate::wish::Wish;

/// A plan in the making.
pub(crate) struct Making<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) previous: &'a Previous,
    pub(crate) now: Timestamp,
    seed_names: NameMaker,
    blocks: Arc<Blocks>,
    pub(crate) scope: Scope,
    pub(crate) fresh: Fresh,
    pub(crate) names: Claims<HostName>,
    pub(crate) keys: Claims<Fingerprint>,
    pub(crate) touched_names: BTreeSet<HostName>,
    pub(crate) touched_keys: BTreeSet<Fingerprint>,
    pub(crate) released: OrdMap<String, ReleasedLabel>,
    pub(crate) entries: OrdMap<InstanceId, Arc<Entry>>,
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
            fresh: Fresh::default(),
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
        let names = || {
            let names = wishes
                .iter()
                .flatten()
                .flat_map(|wish| wish.claimed_names().map(|name| (name.clone(), wish.id.clone())));
            Claims::gather(names.collect())
        };
        let keys = || {
            let keys = wishes.iter().flatten();
            let keys = keys.flat_map(|wish| wish.keys.iter().map(|key| (*key, wish.id.clone())));
            Claims::gather(keys.collect())
        };
        (self.names, self.keys) = both(objects.len(), names, keys);
        let ids = inventory.instances.keys().cloned();
        let mut fresh: Vec<_> = ids.zip(wishes).collect();
        if let Some(first) = inventory.instances.keys().next() {
            let mut here = Beside::from(first, &inventory.instances);
            let gone = previous.entries.keys().filter(|id| here.get(id).is_none());
            fresh.extend(gone.map(|id| (id.clone(), None)));
        } else {
            fresh.extend(previous.entries.keys().map(|id| (id.clone(), None)));
        }
        self.fresh = Fresh::of(fresh);
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

    pub(crate) fn wish(&self, id: &InstanceId) -> Option<&Arc<Wish>> {
        match self.fresh.get(id) {
            Some(fresh) => fresh.as_ref(),
            None => self.previous.entries.get(id)?.wish.as_ref(),
        }
    }

    /// Decides about every instance that something has changed for.
    pub(crate) fn decide_instances(&mut self) {
        let recount = self.scope.instances.is_none();
        let wishes: Vec<(InstanceId, Option<Arc<Wish>>)> = match self.scope.instances.take() {
            Some(some) => some.into_iter().map(|id| (id.clone(), self.wish(&id).cloned())).collect(),
            None if self.scope.objects.is_none() => self.fresh.all().to_vec(),
            None => {
                let known = self.previous.entries.iter().map(|(id, entry)| (id.clone(), entry.wish.clone()));
                let fresh = self.fresh.all().iter().cloned();
                known.chain(fresh).collect::<BTreeMap<_, _>>().into_iter().collect()
            }
        };
        let decided = in_halves(&wishes, |part| self.decide_part(part, recount));
        let decided: Vec<Decided<'_>> = wishes
            .into_iter()
            .zip(decided)
            .map(|((id, _), (before, entry))| Decided { id, before, entry: entry.map(Arc::new) })
            .collect();
        let (entries, routes) = (std::mem::take(&mut self.entries), std::mem::take(&mut self.routes));
        let (put, ()) = both(
            decided.len(),
            || put_routes(entries, routes, &decided),
            || {
                for one in &decided {
                    self.tell(one, recount);
                }
            },
        );
        (self.entries, self.routes, self.new_routes) = (put.entries, put.routes, put.new);
        self.routes_differ = put.differ;
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

    /// Puts what is told of an instance into the plan.
    fn tell(&mut self, decided: &Decided<'_>, recount: bool) {
        let Decided { id, before, entry } = decided;
        if let Some(before) = before {
            if !recount {
                before.count(&mut self.tallies, &self.blocks, -1);
            }
            if let Some(at) = before.look_again {
                self.look_again.remove(&(at, id.clone()));
            }
        }
        let Some(entry) = entry else {
            self.instances.remove(id);
            return;
        };
        entry.count(&mut self.tallies, &self.blocks, 1);
        if let Some(at) = entry.look_again {
            self.look_again.insert((at, id.clone()));
        }
        if before.is_none_or(|before| !Arc::ptr_eq(&before.status, &entry.status)) {
            self.events.extend(instance_events(id, before.map(|before| &*before.status), &entry.status));
            self.instances.insert(id.clone(), Arc::clone(&entry.status));
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

/// What was decided about an instance before, and now.
struct Decided<'a> {
    id: InstanceId,
    before: Option<&'a Entry>,
    entry: Option<Arc<Entry>>,
}

/// Routes and what is behind them, after what was decided was put in.
struct Put {
    entries: OrdMap<InstanceId, Arc<Entry>>,
    routes: OrdMap<InstanceId, Arc<Route>>,
    /// Who has another route than before.
    new: Vec<InstanceId>,
    /// Is any route another one, or gone?
    differ: bool,
}

fn put_routes(
    entries: OrdMap<InstanceId, Arc<Entry>>,
    routes: OrdMap<InstanceId, Arc<Route>>,
    decided: &[Decided<'_>],
) -> Put {
    let mut put = Put { entries, routes, new: Vec::new(), differ: false };
    for Decided { id, before, entry } in decided {
        let before = before.and_then(|before| before.route.as_ref());
        let now = entry.as_ref().and_then(|entry| entry.route.as_ref());
        let same = match (before, now) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        if !same {
            put.differ = true;
            if let Some(route) = now {
                put.new.push(id.clone());
                put.routes.insert(id.clone(), Arc::clone(route));
            } else {
                put.routes.remove(id);
            }
        }
        match entry {
            Some(entry) => put.entries.insert(id.clone(), Arc::clone(entry)),
            None => put.entries.remove(id),
        };
    }
    put
}
