//! Whose turn is next: what changed alone does not wait behind what changed with a whole fleet. Pure.
//!
//! | | turn |
//! |---|---|
//! | a version block; an instance that changed with few others | soon: three of four turns |
//! | an instance that changed with many others | in time: one of four turns, and every turn that nobody else wants |
//! | waits in time already, and changes with few others | soon, from now on |

use std::collections::{BTreeMap, VecDeque};

use planner::Subject;

/// Of so many turns one is for those who wait in time, so that they never wait for ever.
const IN_TIME_ONE_OF: usize = 4;

/// How long one may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Soon,
    InTime,
}

/// Everybody who waits, once each.
#[derive(Debug, Default)]
pub(super) struct Turns {
    soon: VecDeque<Subject>,
    /// With those who were moved to the other lane; they are passed over.
    in_time: VecDeque<Subject>,
    waiting: BTreeMap<Subject, Lane>,
    taken: usize,
}

impl Turns {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Is there no more room, where so many have some?
    pub(super) fn is_full(&self, most: usize) -> bool {
        self.soon.len() + self.in_time.len() >= most
    }

    /// Does it wait, and at least as well as that?
    pub(super) fn has(&self, subject: &Subject, lane: Lane) -> bool {
        self.waiting.get(subject).is_some_and(|has| *has == lane || *has == Lane::Soon)
    }

    /// Lets somebody wait, or somebody who waits already come sooner.
    pub(super) fn add(&mut self, subject: Subject, lane: Lane) {
        if self.has(&subject, lane) {
            return;
        }
        match lane {
            Lane::Soon => self.soon.push_back(subject.clone()),
            Lane::InTime => self.in_time.push_back(subject.clone()),
        }
        self.waiting.insert(subject, lane);
    }

    /// The next.
    pub(super) fn take(&mut self) -> Option<Subject> {
        self.taken = (self.taken + 1) % IN_TIME_ONE_OF;
        loop {
            let (lane, next) = match (self.soon.pop_front(), self.taken) {
                (Some(next), 1..) => (Lane::Soon, next),
                (Some(first), 0) => match self.in_time.pop_front() {
                    Some(next) => {
                        self.soon.push_front(first);
                        (Lane::InTime, next)
                    }
                    None => (Lane::Soon, first),
                },
                (None, _) => (Lane::InTime, self.in_time.pop_front()?),
            };
            if self.waiting.get(&next) == Some(&lane) {
                self.waiting.remove(&next);
                return Some(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> Subject {
        Subject::Block(name.to_owned())
    }

    fn rest(turns: &mut Turns) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(Subject::Block(name)) = turns.take() {
            names.push(name);
            assert!(names.len() < 10_000, "it never ends");
        }
        names
    }

    #[test]
    fn one_that_changed_alone_does_not_wait_behind_a_fleet_and_the_fleet_not_for_ever() {
        let mut turns = Turns::default();
        for number in 0..8_u8 {
            turns.add(subject(&number.to_string()), Lane::InTime);
        }
        for name in ["a", "b", "c", "d", "e"] {
            turns.add(subject(name), Lane::Soon);
        }
        assert_eq!(turns.len(), 13);
        assert_eq!(rest(&mut turns), ["a", "b", "c", "0", "d", "e", "1", "2", "3", "4", "5", "6", "7"]);
    }

    #[test]
    fn nobody_has_two_turns_however_often_they_are_added() {
        let mut turns = Turns::default();
        for lane in [Lane::InTime, Lane::InTime, Lane::Soon, Lane::InTime, Lane::Soon] {
            turns.add(subject("x"), lane);
        }
        turns.add(subject("y"), Lane::InTime);
        assert!(turns.has(&subject("x"), Lane::InTime) && turns.has(&subject("x"), Lane::Soon));
        assert!(turns.has(&subject("y"), Lane::InTime) && !turns.has(&subject("y"), Lane::Soon));
        assert_eq!(turns.take(), Some(subject("x")));
        // It waits again, behind what is left of where it waited first.
        turns.add(subject("x"), Lane::InTime);
        assert_eq!(turns.len(), 2);
        let mut names = rest(&mut turns);
        names.sort();
        assert_eq!(names, ["x", "y"]);
        assert!(turns.is_empty() && !turns.is_full(1));
    }
}
