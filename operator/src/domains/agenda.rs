//! Which custom domain is asked about next. Pure: the time is an argument, nobody is asked here.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use planner::Proof;
use resources::Timestamp;
use route_table::{HostName, InstanceId};

use super::Wanted;
use super::schedule::{Course, Look, Timing};

/// A domain and the instance that wants it: several may want the same one.
pub(super) type Key = (HostName, InstanceId);

/// Time since the start, by a clock that nobody sets.
pub(super) type Moment = Duration;

/// Somebody to ask about.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) wanted: Arc<Wanted>,
    /// Is the CNAME record the likely one?
    pub(super) cname_first: bool,
}

#[derive(Debug)]
struct Known {
    wanted: Arc<Wanted>,
    course: Course,
    /// When it is asked about next; none while it is.
    due: Option<Moment>,
}

/// Everything that is wanted, and when.
#[derive(Debug)]
pub(super) struct Agenda {
    timing: Timing,
    most: usize,
    known: BTreeMap<Key, Known>,
    due: BTreeSet<(Moment, Key)>,
    proofs: OrdMap<Key, Proof>,
    /// Those that there is no room for.
    too_many: Vec<Key>,
}

impl Agenda {
    /// An empty one, for at most so many domains.
    pub(super) fn new(timing: Timing, most: usize) -> Self {
        let (known, due, proofs) = (BTreeMap::new(), BTreeSet::new(), OrdMap::new());
        Self { timing, most, known, due, proofs, too_many: Vec::new() }
    }

    /// What is wanted from now on; all that is not in it is forgotten. New ones are asked about at once.
    pub(super) fn want(&mut self, wanted: &[Arc<Wanted>], now: Moment) {
        let mut before = std::mem::take(&mut self.known);
        // Those that are known keep their places where there are too many.
        let mut fresh = Vec::new();
        for each in wanted {
            match before.remove_entry(&each.key()) {
                Some((key, known)) if known.wanted == *each => {
                    self.known.insert(key, known);
                }
                Some((key, known)) => {
                    // Another record is to be looked for: what was seen does not count.
                    self.forget(&key, &known);
                    fresh.push(each);
                }
                None => fresh.push(each),
            }
        }
        for (key, known) in before {
            self.forget(&key, &known);
        }
        for key in std::mem::take(&mut self.too_many) {
            self.proofs.remove(&key);
        }
        for each in fresh {
            let key = each.key();
            if self.known.len() >= self.most && !self.known.contains_key(&key) {
                self.proofs.insert(key.clone(), too_many(self.most));
                self.too_many.push(key);
                continue;
            }
            if let Entry::Vacant(place) = self.known.entry(key.clone()) {
                place.insert(Known { wanted: Arc::clone(each), course: Course::new(), due: Some(now) });
                self.due.insert((now, key));
            }
        }
    }

    fn forget(&mut self, key: &Key, known: &Known) {
        if let Some(due) = known.due {
            self.due.remove(&(due, key.clone()));
        }
        self.proofs.remove(key);
    }

    /// When somebody is to be asked about next.
    pub(super) fn next(&self) -> Option<Moment> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Whoever has waited longest, if it is time. A task that was taken is either [noted](Self::note) or lost with what
    /// was wanted.
    pub(super) fn take(&mut self, now: Moment) -> Option<Task> {
        let (due, _) = self.due.first()?;
        if *due > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        let known = self.known.get_mut(&key)?;
        known.due = None;
        let cname_first = known.course.likely() == planner::ProofAnswer::Cname;
        Some(Task { wanted: Arc::clone(&known.wanted), cname_first })
    }

    /// What came of a task. Says whether there is a new proof to be told.
    pub(super) fn note(&mut self, wanted: &Arc<Wanted>, look: Look, now: Moment, at: Timestamp) -> bool {
        let key = wanted.key();
        let Some(known) = self.known.get_mut(&key) else { return false };
        // Not wanted any more, or for another record: nobody waits for this answer.
        if known.wanted != *wanted || known.due.is_some() {
            return false;
        }
        let due = now + known.course.note(look, at, place(&key), &self.timing);
        known.due = Some(due);
        let proof = &known.course.proof;
        let told = self.proofs.get(&key) == Some(proof);
        if !told {
            self.proofs.insert(key.clone(), proof.clone());
        }
        self.due.insert((due, key));
        !told
    }

    /// All proofs; cheap to clone.
    pub(super) fn proofs(&self) -> &OrdMap<Key, Proof> {
        &self.proofs
    }
}

/// Where a domain has its place in an hour: the same one every time.
fn place(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key.0.as_str(), key.1.as_str()).hash(&mut hasher);
    hasher.finish()
}

fn too_many(most: usize) -> Proof {
    let trouble = format!("more than {most} custom domains are asked for; this one is not looked at");
    Proof { answer: None, missing_since: None, trouble: Some(trouble) }
}

#[cfg(test)]
mod tests {
    use planner::ProofAnswer::{Missing, Txt};

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn wanted(domain: &str, value: &str) -> Arc<Wanted> {
        Arc::new(Wanted {
            domain: domain.parse().unwrap(),
            id: "homes/lake".parse().unwrap(),
            txt_name: format!("_latchkey.{domain}"),
            txt_value: value.to_owned(),
            cname_target: "random.ui.example.com".parse().unwrap(),
        })
    }

    fn agenda(most: usize) -> Agenda {
        Agenda::new(Timing::default(), most)
    }

    fn shown() -> Look {
        Look::Answer(Txt, MINUTE)
    }

    #[test]
    fn new_ones_come_at_once_and_again_when_it_is_time() {
        let mut agenda = agenda(10);
        let (a, b) = (wanted("a.example", "v"), wanted("b.example", "v"));
        agenda.want(&[Arc::clone(&a), Arc::clone(&b)], MINUTE);
        let first = agenda.take(MINUTE).unwrap().wanted;
        let second = agenda.take(MINUTE).unwrap().wanted;
        assert_eq!((&first, &second), (&a, &b));
        assert!(agenda.take(MINUTE).is_none() && agenda.next().is_none(), "both are asked about");

        assert!(agenda.note(&a, Look::Answer(Missing, Duration::ZERO), MINUTE, Timestamp(60)));
        assert_eq!(agenda.next(), Some(MINUTE + Duration::from_secs(5)));
        assert!(agenda.take(MINUTE + Duration::from_secs(4)).is_none());
        assert_eq!(agenda.take(MINUTE + Duration::from_secs(5)).unwrap().wanted, a);
        assert!(!agenda.note(&a, Look::Answer(Missing, Duration::ZERO), MINUTE, Timestamp(65)), "no news");
        assert_eq!(agenda.proofs().len(), 1);
    }

    #[test]
    fn what_is_wanted_again_stays_as_it_is() {
        let mut agenda = agenda(10);
        let a = wanted("a.example", "v");
        agenda.want(&[Arc::clone(&a)], Duration::ZERO);
        agenda.take(Duration::ZERO).unwrap();
        agenda.note(&a, shown(), Duration::ZERO, Timestamp(0));
        let (proofs, next) = (agenda.proofs().clone(), agenda.next());
        agenda.want(&[wanted("a.example", "v"), wanted("b.example", "v")], MINUTE);
        assert_eq!(agenda.proofs(), &proofs);
        assert_eq!(agenda.take(MINUTE).unwrap().wanted.domain.as_str(), "b.example");
        assert_eq!(agenda.next(), next);
    }

    #[test]
    fn what_is_not_wanted_is_forgotten_and_its_late_answer_with_it() {
        let mut agenda = agenda(10);
        let a = wanted("a.example", "v");
        agenda.want(&[Arc::clone(&a)], Duration::ZERO);
        agenda.take(Duration::ZERO).unwrap();
        agenda.note(&a, shown(), Duration::ZERO, Timestamp(0));
        agenda.want(&[], MINUTE);
        assert!(agenda.proofs().is_empty() && agenda.next().is_none());
        assert!(!agenda.note(&a, shown(), MINUTE, Timestamp(60)));
        assert!(agenda.proofs().is_empty());
    }

    #[test]
    fn another_value_begins_anew() {
        let mut agenda = agenda(10);
        let old = wanted("a.example", "old");
        agenda.want(&[Arc::clone(&old)], Duration::ZERO);
        agenda.take(Duration::ZERO).unwrap();
        let new = wanted("a.example", "new");
        agenda.want(&[Arc::clone(&new)], Duration::ZERO);
        assert!(!agenda.note(&old, shown(), Duration::ZERO, Timestamp(0)), "asked for the old one");
        assert!(agenda.proofs().is_empty());
        assert_eq!(agenda.take(Duration::ZERO).unwrap().wanted, new);
        assert!(agenda.note(&new, shown(), Duration::ZERO, Timestamp(0)));
    }

    #[test]
    fn too_many_are_told_so_and_come_when_there_is_room() {
        let mut agenda = agenda(2);
        let [a, b, c] = ["a.example", "b.example", "c.example"].map(|domain| wanted(domain, "v"));
        agenda.want(&[Arc::clone(&b), Arc::clone(&c)], Duration::ZERO);
        agenda.want(&[Arc::clone(&a), Arc::clone(&b), Arc::clone(&c)], Duration::ZERO);
        let trouble = |agenda: &Agenda, wanted: &Wanted| {
            agenda.proofs().get(&wanted.key()).and_then(|proof| proof.trouble.clone())
        };
        assert!(trouble(&agenda, &a).unwrap().contains("more than 2"), "whoever was there first stays");
        assert_eq!((agenda.proofs().len(), agenda.due.len()), (1, 2));
        agenda.want(&[Arc::clone(&a), Arc::clone(&c)], Duration::ZERO);
        assert_eq!((trouble(&agenda, &a), agenda.due.len()), (None, 2));
    }

    #[test]
    fn a_domain_that_is_named_twice_is_asked_about_once() {
        let mut agenda = agenda(10);
        agenda.want(&[wanted("a.example", "v"), wanted("a.example", "w")], Duration::ZERO);
        assert_eq!((agenda.known.len(), agenda.due.len()), (1, 1));
    }
}
