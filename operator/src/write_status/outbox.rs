//! Which statuses are to be written: those that say something else than the API server has. Pure: the time is an argument.
//!
//! Only names wait here. What is written is looked up when its turn comes, so that the newest counts, and an object waits
//! at most once whatever happens to it meanwhile.
//!
//! | an object's status | what becomes of it |
//! |---|---|
//! | is what the API server has | nothing |
//! | was written, and the watch has not shown that yet | nothing: what the API server answered counts |
//! | was written, and the API server makes something else of it each time | nothing, until another is wanted |
//! | is wanted otherwise | waits for its turn |
//! | was changed by somebody else | waits for its turn, and the longer the oftener it happens |
//! | was refused | waits for longer, or until another is wanted |
//! | is told no more: this installation serves the object no longer | waits for its turn to be taken back, once |
//! | there is no room | dropped and counted; everything is compared again when there is room |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use planner::{Ordered, Subject};
use resources::{Observed, RemoteInstanceStatus, VersionBlockStatus};
use route_table::InstanceId;
use tokio::time::Instant;

use super::turns::{Lane, Turns};
use crate::observe::{Digest, Objects, Said, Told};

/// So many instances that change together are few: they do not wait behind many.
const FEW: usize = 64;
/// The first and the longest wait before a status that somebody else changed is set right.
const CONTESTED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));
/// The first and the longest wait before a status that was refused is sent again.
const REFUSED: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(30));

/// The statuses that are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) instances: Ordered<InstanceId, Arc<RemoteInstanceStatus>>,
    pub(super) blocks: OrdMap<String, Arc<VersionBlockStatus>>,
    /// Of which objects this installation had told something before this process began: of those that are not wanted now
    /// it is taken back.
    pub(super) earlier: Arc<[Subject]>,
}

/// A status.
#[derive(Debug, Clone)]
pub(super) enum Status {
    Instance(Arc<RemoteInstanceStatus>),
    Block(Arc<VersionBlockStatus>),
    /// None any more: what was told is taken back.
    Nothing,
}

impl Status {
    /// What the API server is to have then.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Instance(status) => Some(status.digest()),
            Self::Block(status) => Some(status.digest()),
            Self::Nothing => None,
        }
    }
}

/// A status to be written now.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) subject: Subject,
    pub(super) status: Status,
    /// The uid of an object that makes no sense.
    pub(super) nonsense: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landing {
    /// The API server has it, or what it made of it.
    Written(Told),
    /// The object is not there any more, or another is.
    Gone,
    /// This one is not taken.
    Refused,
    /// Nobody's is taken at present.
    Later,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Outbox {
    most: usize,
    wanted: Wanted,
    objects: Objects,
    turns: Turns,
    flying: BTreeMap<Subject, Option<Digest>>,
    /// Objects that are served no more, while something of ours may stand there.
    leaving: BTreeSet<Subject>,
    written: BTreeMap<Subject, Written>,
    held: BTreeMap<Subject, Held>,
    held_until: BTreeSet<(Instant, Subject)>,
    /// Something was dropped since everything was compared.
    overflowed: bool,
    /// Names that were dropped.
    pub(super) dropped: u64,
    /// Statuses that somebody else changed.
    pub(super) contested: u64,
}

/// What was written last, while the watch has not shown it, or shows something else for it.
#[derive(Debug)]
struct Written {
    wanted: Option<Digest>,
    made_of_it: Told,
}

/// A status that is left alone for a while.
#[derive(Debug)]
struct Held {
    wanted: Option<Digest>,
    until: Instant,
    wait: Duration,
}

impl Outbox {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            wanted: Wanted::default(),
            objects: Objects::default(),
            turns: Turns::default(),
            flying: BTreeMap::new(),
            leaving: BTreeSet::new(),
            written: BTreeMap::new(),
            held: BTreeMap::new(),
            held_until: BTreeSet::new(),
            overflowed: false,
            dropped: 0,
            contested: 0,
        }
    }

    /// How many wait for their turn; those that found no room are one together.
    pub(super) fn waiting(&self) -> usize {
        self.turns.len() + usize::from(self.overflowed)
    }

    /// How many are on their way.
    pub(super) fn flying(&self) -> usize {
        self.flying.len()
    }

    /// How many are left alone for a while.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// When a status that was left alone has its turn.
    pub(super) fn next_release(&self) -> Option<Instant> {
        self.held_until.first().map(|(until, _)| *until)
    }

    /// Other statuses are wanted, or the API server has others.
    pub(super) fn offer(&mut self, wanted: Wanted, objects: Objects, now: Instant) {
        let mut changed: Vec<(Subject, Lane)> = Vec::new();
        if !Arc::ptr_eq(&wanted.earlier, &self.wanted.earlier) {
            changed.extend(wanted.earlier.iter().cloned().map(|subject| (subject, Lane::InTime)));
        }
        // There are never many of them, and what they count is what a person looks at.
        let blocks = self.wanted.blocks.diff(&wanted.blocks);
        changed.extend(blocks.map(|change| (Subject::Block(key(&change).clone()), Lane::Soon)));
        let instances = wanted.instances.changes_since(&self.wanted.instances);
        let lane = if instances.len() <= FEW { Lane::Soon } else { Lane::InTime };
        changed.extend(instances.into_iter().map(|(id, _)| (Subject::Instance(id.clone()), lane)));
        let mut seen = Vec::new();
        for change in self.objects.instances_told.diff(&objects.instances_told) {
            seen.push((Subject::Instance(key(&change).clone()), told(&change)));
        }
        for change in self.objects.blocks_told.diff(&objects.blocks_told) {
            seen.push((Subject::Block(key(&change).clone()), told(&change)));
        }
        self.wanted = wanted;
        self.objects = objects;
        for (subject, lane) in changed {
            if self.is_wanted(&subject) {
                self.leaving.remove(&subject);
            } else if self.seen(&subject).is_some() {
                self.leaving.insert(subject.clone());
            }
            self.consider(subject, lane, now);
        }
        for (subject, (told, before)) in seen {
            self.see(subject, told, before, now);
        }
    }

    /// Compares everything.
    pub(super) fn compare_all(&mut self, now: Instant) {
        self.overflowed = false;
        let instances = self.wanted.instances.keys().cloned().map(Subject::Instance);
        let blocks = self.wanted.blocks.keys().cloned().map(Subject::Block);
        let leaving = self.leaving.iter().cloned();
        for subject in instances.chain(blocks).chain(leaving).collect::<Vec<_>>() {
            self.consider(subject, Lane::InTime, now);
        }
    }

    /// The next status to be written, if one has its turn.
    pub(super) fn next(&mut self, now: Instant) -> Option<Letter> {
        while self.next_release().is_some_and(|until| until <= now) {
            if let Some((_, subject)) = self.held_until.pop_first() {
                self.consider(subject, Lane::InTime, now);
            }
        }
        if self.overflowed && self.turns.is_empty() {
            self.compare_all(now);
        }
        while let Some(subject) = self.turns.take() {
            let Some(status) = self.wanted_of(&subject) else { continue };
            let digest = status.digest();
            if self.is_told(&subject, digest) {
                continue;
            }
            self.flying.insert(subject.clone(), digest);
            let nonsense = self.nonsense(&subject);
            return Some(Letter { subject, status, nonsense });
        }
        None
    }

    /// One that [`Outbox::next`] gave has come to an end.
    pub(super) fn landed(&mut self, subject: Subject, landing: Landing, now: Instant) {
        let Some(wanted) = self.flying.remove(&subject) else { return };
        match landing {
            Landing::Gone if wanted.is_none() => drop(self.leaving.remove(&subject)),
            Landing::Written(made_of_it) => {
                if wanted.is_none() {
                    // What stands there now is somebody else's.
                    self.leaving.remove(&subject);
                }
                // A write that changes nothing brings no news by the watch, and neither does one that it has shown.
                let shown = self.seen(&subject).is_none_or(|seen| seen.revision >= made_of_it.revision);
                if shown && made_of_it.digest == wanted {
                    self.written.remove(&subject);
                } else {
                    self.written.insert(subject.clone(), Written { wanted, made_of_it });
                }
            }
            Landing::Gone => self.hold(&subject, wanted, CONTESTED, now),
            Landing::Refused => self.hold(&subject, wanted, REFUSED, now),
            Landing::Later => {}
        }
        // Another may be wanted by now.
        self.consider(subject, Lane::Soon, now);
    }

    /// The watch shows something else for an object than before.
    fn see(&mut self, subject: Subject, told: Option<Told>, before: Option<Told>, now: Instant) {
        let Some(told) = told else {
            self.forget(&subject);
            return;
        };
        let wanted = self.wanted_of(&subject).map(|status| status.digest());
        // The watch may be faster than the answer.
        let mut ours = self.flying.get(&subject).is_some_and(|flying| told.digest == *flying);
        let undone = before.is_some_and(|before| Some(before.digest) == wanted);
        let mut overwritten = false;
        if let Some(written) = self.written.get(&subject)
            && told.revision >= written.made_of_it.revision
        {
            ours |= told == written.made_of_it;
            overwritten = told.digest != written.made_of_it.digest && Some(written.wanted) == wanted;
            if overwritten || written.made_of_it.digest == written.wanted {
                self.written.remove(&subject);
            }
        }
        if let Some(wanted) = wanted
            && (undone || overwritten)
            && !ours
            && told.digest != wanted
            && !self.is_told(&subject, wanted)
        {
            self.contested += 1;
            self.hold(&subject, wanted, CONTESTED, now);
        }
        self.consider(subject, Lane::InTime, now);
    }

    fn forget(&mut self, subject: &Subject) {
        self.leaving.remove(subject);
        self.written.remove(subject);
        if let Some(held) = self.held.remove(subject) {
            self.held_until.remove(&(held.until, subject.clone()));
        }
    }

    /// Lets it wait, longer each time.
    fn hold(&mut self, subject: &Subject, wanted: Option<Digest>, waits: (Duration, Duration), now: Instant) {
        let known = self.held.remove(subject);
        let wait = match known {
            Some(known) => {
                self.held_until.remove(&(known.until, subject.clone()));
                // After a time of peace, or for another status, it begins anew.
                let again = known.wanted == wanted && now < known.until + known.wait * 4;
                if again { (known.wait * 2).clamp(waits.0, waits.1) } else { waits.0 }
            }
            None => waits.0,
        };
        let until = now + wait;
        self.held.insert(subject.clone(), Held { wanted, until, wait });
        self.held_until.insert((until, subject.clone()));
    }

    /// Lets it wait for its turn, if it is to be written.
    fn consider(&mut self, subject: Subject, lane: Lane, now: Instant) {
        // Looked at again when it has landed.
        if self.flying.contains_key(&subject) || self.turns.has(&subject, lane) {
            return;
        }
        let Some(wanted) = self.wanted_of(&subject).map(|status| status.digest()) else {
            self.forget(&subject);
            return;
        };
        if let Some(held) = self.held.get(&subject) {
            if held.wanted == wanted && now < held.until {
                return;
            }
            if held.wanted != wanted || now >= held.until + held.wait * 4 {
                self.held_until.remove(&(held.until, subject.clone()));
                self.held.remove(&subject);
            }
        }
        if self.is_told(&subject, wanted) {
            if wanted.is_none() {
                self.forget(&subject);
            }
            return;
        }
        if self.turns.is_full(self.most) {
            self.dropped += 1;
            self.overflowed = true;
            return;
        }
        self.turns.add(subject, lane);
    }

    /// Does the API server have it, as far as anybody knows? Of an object that is not there nothing can be told.
    fn is_told(&self, subject: &Subject, wanted: Option<Digest>) -> bool {
        let Some(seen) = self.seen(subject) else { return true };
        match self.written.get(subject) {
            // What is seen is older than what was written.
            Some(written) if seen.revision < written.made_of_it.revision => written.wanted == wanted,
            Some(written) if written.wanted == wanted && written.made_of_it.digest == seen.digest => true,
            _ => seen.digest == wanted,
        }
    }

    fn seen(&self, subject: &Subject) -> Option<Told> {
        match subject {
            Subject::Instance(id) => self.objects.instances_told.get(id).copied(),
            Subject::Block(name) => self.objects.blocks_told.get(name).copied(),
        }
    }

    fn is_wanted(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Instance(id) => self.wanted.instances.get(id).is_some(),
            Subject::Block(name) => self.wanted.blocks.contains_key(name),
        }
    }

    fn wanted_of(&self, subject: &Subject) -> Option<Status> {
        let wanted = match subject {
            Subject::Instance(id) => self.wanted.instances.get(id).cloned().map(Status::Instance),
            Subject::Block(name) => self.wanted.blocks.get(name).cloned().map(Status::Block),
        };
        wanted.or_else(|| self.leaving.contains(subject).then_some(Status::Nothing))
    }

    fn nonsense(&self, subject: &Subject) -> Option<String> {
        let unreadable = match subject {
            Subject::Instance(id) => self
                .objects
                .instances
                .get(id)
                .is_some_and(|object| matches!(**object, Observed::Unreadable(_))),
            Subject::Block(name) => self
                .objects
                .blocks
                .get(name)
                .is_some_and(|object| matches!(**object, Observed::Unreadable(_))),
        };
        unreadable.then(|| uid(&self.objects, subject).unwrap_or_default())
    }
}

/// The uid of an object.
pub(super) fn uid(objects: &Objects, subject: &Subject) -> Option<String> {
    match subject {
        Subject::Instance(id) => objects.instances.get(id)?.about().uid.as_deref().map(str::to_owned),
        Subject::Block(name) => objects.blocks.get(name)?.about().uid.as_deref().map(str::to_owned),
    }
}

/// What is told now, and what was told before.
fn told(change: &DiffItem<'_, '_, impl Sized, Told>) -> (Option<Told>, Option<Told>) {
    match change {
        DiffItem::Add(_, told) => (Some(**told), None),
        DiffItem::Update { old: (_, old), new: (_, new) } => (Some(**new), Some(**old)),
        DiffItem::Remove(_, told) => (None, Some(**told)),
    }
}

fn key<'a, K, V>(change: &DiffItem<'a, 'a, K, V>) -> &'a K {
    match change {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => key,
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
