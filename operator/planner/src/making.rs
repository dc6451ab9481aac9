//! A plan in the making: the steps that `plan` takes, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use resources::{Observed, RemoteInstance, RemoteInstanceStatus, Timestamp, VersionBlockStatus};

use route_table::{Fingerprint, HostName, InstanceId, Route};

use crate::beside::Beside;
use crate::blocks::{Blocks, Tally};
use crate::claims::Claims;
use crate::events::{Event, block_event};
use crate::fresh::{Fresh, Wished};
use crate::halves::{both, in_halves};
use crate::inventory::{Inventory, ReleasedLabel};
use crate::names::NameMaker;
use crate::ordered::Ordered;
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
    pub(crate) seed_names: NameMaker,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) scope: Scope,
    pub(crate) fresh: Fresh,
    pub(crate) names: Claims<HostName>,
    pub(crate) keys: Claims<Fingerprint>,
    pub(crate) touched_names: BTreeSet<HostName>,
    pub(crate) touched_keys: BTreeSet<Fingerprint>,
    pub(crate) released: OrdMap<String, ReleasedLabel>,
    pub(crate) entries: Ordered<InstanceId, Arc<Entry>>,
    pub(crate) routes: Ordered<InstanceId, Route>,
    pub(crate) instances: Ordered<InstanceId, Arc<RemoteInstanceStatus>>,
    pub(crate) tallies: Vec<Tally>,
    pub(crate) look_again: OrdSet<(Timestamp, InstanceId)>,
    /// Whose route not every proxy has, by the revision that brought it: of all, or who got another one.
    pub(crate) not_applied: BTreeMap<u64, Vec<InstanceId>>,
    pub(crate) decided_all: bool,
    pub(crate) routes_differ: bool,
    pub(crate) events: Vec<Event>,
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
            not_applied: BTreeMap::new(),
            decided_all: false,
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
        let read = in_halves(&objects, |part| {
            let mut before = Beside::remembered(&previous.entries, part.first().map(|(first, _)| *first));
            let read = |(id, object): &(&InstanceId, &Arc<Observed<RemoteInstance>>)| {
                let before = before.get(id).and_then(|entry| entry.wish.as_deref());
                let wish = Wish::read(&inventory.settings, seed_names, id, object, before).map(Arc::new);
                ((*id).clone(), wish)
            };
            part.iter().map(read).collect::<Vec<Wished>>()
        });
        let mut fresh = Vec::with_capacity(objects.len());
        for mut part in read {
            fresh.append(&mut part);
        }
        let wishes = || fresh.iter().filter_map(|(_, wish)| wish.as_ref());
        let names = || {
            let names =
                wishes().flat_map(|wish| wish.claimed_names().map(|name| (name.clone(), wish.id.clone())));
            Claims::gather(names.collect())
        };
        let keys = || {
            let keys = wishes().flat_map(|wish| wish.keys.iter().map(|key| (*key, wish.id.clone())));
            Claims::gather(keys.collect())
        };
        (self.names, self.keys) = both(objects.len(), names, keys);
        let mut here = Beside::facts(&inventory.instances, objects.first().map(|(first, _)| *first));
        let gone = previous.entries.keys().filter(|id| here.get(id).is_none());
        let gone = gone.cloned().collect();
        self.fresh = Fresh::of(fresh, gone);
        self.touched_names = self.names.contested();
        self.touched_keys = self.keys.contested();
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

    /// The plan, and what the next one may use.
    pub(crate) fn finish(mut self) -> (Plan, Previous) {
        self.keep_released();
        let revision = if self.routes_differ || !self.previous.planned {
            self.previous.revision.saturating_add(1)
        } else {
            self.previous.revision
        };
        let block_statuses = self.block_statuses();
        let not_applied = self.not_applied();
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
    fn not_applied(&mut self) -> OrdMap<u64, Arc<[InstanceId]>> {
        let applied = self.inventory.facts.applied.revision.unwrap_or_default();
        let known = self.previous.worked_out.as_ref().filter(|_| !self.decided_all);
        let mut waiting = known.map(|known| known.not_applied.clone()).unwrap_or_default();
        while let Some((done, _)) = waiting.get_min().filter(|(revision, _)| *revision <= applied) {
            let done = *done;
            waiting.remove(&done);
        }
        let more = std::mem::take(&mut self.not_applied);
        waiting.extend(more.into_iter().map(|(revision, ids)| (revision, Arc::from(ids))));
        waiting
    }
}
