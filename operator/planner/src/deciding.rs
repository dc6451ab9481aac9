//! The step of a plan in the making that costs most: deciding about instances, and putting what came out into the plan.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use resources::{RemoteInstanceStatus, Timestamp};
use route_table::{InstanceId, Route};

use crate::beside::Beside;
use crate::blocks::{Judge, Tally};
use crate::conditions::AlikeConditions;
use crate::events::{Event, instance_events};
use crate::fresh::Wished;
use crate::halves::{both, in_halves};
use crate::instance::{Circumstances, decide};
use crate::making::Making;
use crate::previous::Entry;

/// What became of some instances, in the order of their ids. Put together beside each other, so that hardly anything is
/// left to do for all one after the other.
#[derive(Default)]
struct Decided {
    /// `None` for who is gone; so in the next two.
    entries: Vec<(InstanceId, Option<Arc<Entry>>)>,
    /// Routes that are others than before.
    routes: Vec<(InstanceId, Option<Route>)>,
    /// Statuses that are others than before.
    statuses: Vec<(InstanceId, Option<Arc<RemoteInstanceStatus>>)>,
    events: Vec<Event>,
    /// What to add to the tallies of the blocks.
    tallies: Vec<Tally>,
    /// When nobody has to be looked at any more.
    looked_at: Vec<(Timestamp, InstanceId)>,
    /// When who has to be looked at again.
    look_again: Vec<(Timestamp, InstanceId)>,
    /// Whose route not every proxy has, by the revision that brought it. Where not all are decided about: new ones.
    not_applied: BTreeMap<u64, Vec<InstanceId>>,
}

impl Making<'_> {
    /// Decides about every instance that something has changed for.
    pub(crate) fn decide_instances(&mut self) {
        let all = self.scope.instances.is_none();
        let wishes: Cow<'_, [Wished]> = match self.scope.instances.take() {
            Some(some) => some.into_iter().map(|id| (id.clone(), self.wish(&id).cloned())).collect(),
            None if self.scope.objects.is_none() => self.fresh.all().into(),
            None => {
                let known = self.previous.entries.iter().map(|(id, entry)| (id.clone(), entry.wish.clone()));
                let fresh = self.fresh.all().iter().cloned();
                known.chain(fresh).collect::<BTreeMap<_, _>>().into_iter().collect()
            }
        };
        let mut parts = in_halves(&wishes, |part| self.decide_part(part, all)).into_iter();
        let mut decided = parts.next().unwrap_or_default();
        for part in parts {
            decided.append(part);
        }
        let Decided { entries, routes, statuses, events, tallies, looked_at, look_again, not_applied } =
            decided;
        self.routes_differ = !routes.is_empty();
        let (known_entries, known_routes, known_statuses) = (
            std::mem::take(&mut self.entries),
            std::mem::take(&mut self.routes),
            std::mem::take(&mut self.instances),
        );
        (self.entries, (self.routes, self.instances)) = both(
            entries.len(),
            || known_entries.changed(entries),
            || (known_routes.changed(routes), known_statuses.changed(statuses)),
        );
        self.events = events;
        for (tally, more) in self.tallies.iter_mut().zip(tallies) {
            tally.add(more);
        }
        for place in looked_at {
            self.look_again.remove(&place);
        }
        self.look_again.extend(look_again);
        self.not_applied = not_applied;
        self.decided_all = all;
    }

    /// Decides about some instances, in the order of their ids.
    fn decide_part(&self, part: &[Wished], all: bool) -> Decided {
        let all_from = part.first().map(|(first, _)| first).filter(|_| all);
        let mut reports = Beside::facts(&self.inventory.facts.reports, all_from);
        let mut entries = Beside::remembered(&self.previous.entries, all_from);
        let mut judge = Judge::new(&self.blocks, self.inventory.settings.spec.unknown_version);
        let mut alike = AlikeConditions::default();
        let given = Circumstances {
            settings: &self.inventory.settings,
            names: &self.seed_names,
            blocks: &self.blocks,
            applied: self.inventory.facts.applied,
            next_revision: self.previous.revision.saturating_add(1),
            now: self.now,
        };
        let mut decided = Decided {
            entries: Vec::with_capacity(part.len()),
            tallies: vec![Tally::default(); self.blocks.len()],
            ..Decided::default()
        };
        for (id, wish) in part {
            let before = entries.get(id).map(|before| &**before);
            let reported = reports.get(id);
            let entry = wish.as_ref().map(|wish| {
                decide(&given, &mut judge, &mut alike, wish, self.shares(wish), reported, before)
            });
            self.tell(&mut decided, id, before, entry, all);
        }
        decided
    }

    /// Adds what is told of an instance, and what has to be remembered.
    fn tell(
        &self,
        decided: &mut Decided,
        id: &InstanceId,
        before: Option<&Entry>,
        entry: Option<Entry>,
        all: bool,
    ) {
        if let Some(before) = before {
            if !all {
                before.count(&mut decided.tallies, &self.blocks, -1);
            }
            decided.looked_at.extend(before.look_again.map(|at| (at, id.clone())));
        }
        let Some(entry) = entry else {
            if let Some(before) = before {
                decided.entries.push((id.clone(), None));
                decided.statuses.push((id.clone(), None));
                if before.route.is_some() {
                    decided.routes.push((id.clone(), None));
                }
            }
            return;
        };
        entry.count(&mut decided.tallies, &self.blocks, 1);
        decided.look_again.extend(entry.look_again.map(|at| (at, id.clone())));
        if before.is_none_or(|before| !Arc::ptr_eq(&before.status, &entry.status)) {
            decided.events.extend(instance_events(id, before.map(|before| &*before.status), &entry.status));
            decided.statuses.push((id.clone(), Some(Arc::clone(&entry.status))));
        }
        let known = before.and_then(|before| before.route.as_ref());
        let same = match (known, &entry.route) {
            (Some(known), Some(route)) => known.is_same(route),
            (None, None) => true,
            _ => false,
        };
        if !same {
            decided.routes.push((id.clone(), entry.route.clone()));
        }
        let applied = self.inventory.facts.applied.revision.unwrap_or_default();
        if entry.route_revision > applied && (all || !same) {
            decided.not_applied.entry(entry.route_revision).or_default().push(id.clone());
        }
        decided.entries.push((id.clone(), Some(Arc::new(entry))));
    }
}

impl Decided {
    fn append(&mut self, mut more: Self) {
        self.entries.append(&mut more.entries);
        self.routes.append(&mut more.routes);
        self.statuses.append(&mut more.statuses);
        self.events.append(&mut more.events);
        for (tally, more) in self.tallies.iter_mut().zip(&more.tallies) {
            tally.add(*more);
        }
        self.looked_at.append(&mut more.looked_at);
        self.look_again.append(&mut more.look_again);
        for (revision, mut ids) in more.not_applied {
            self.not_applied.entry(revision).or_default().append(&mut ids);
        }
    }
}
