//! What many statuses have in common is kept once.
//!
//! The planner's own statuses share their lists of conditions, and their words are constants. Read from an API server,
//! each has its own copy of all of it, which is more than half of what it takes. A leader begins with statuses that were
//! read, and goes on with them as long as nothing changes, so these are made like the planner's.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use resources::condition::Conditions;
use resources::{Condition, RemoteInstanceStatus, VersionBlockStatus};

/// Most texts that become constants. They stay as long as the process, so there is an end to it: the planner has fewer,
/// and what names or counts something comes too seldom to matter.
const MAX_WORDS: usize = 1_024;
/// Longest text that becomes one.
const MAX_WORD: usize = 256;
/// Most lists that are known at once.
const MAX_LISTS: usize = 65_536;

/// Texts that became constants.
static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// Lists of conditions that were seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Sharing {
    lists: HashSet<Conditions>,
}

/// A status whose parts can be shared.
pub(super) trait Shareable {
    fn share(&mut self, sharing: &mut Sharing);
}

impl Shareable for RemoteInstanceStatus {
    fn share(&mut self, sharing: &mut Sharing) {
        if let Some(known) = sharing.lists.get(&*self.conditions) {
            self.conditions = known.clone();
            return;
        }
        let mut conditions = self.conditions.to_vec();
        conditions.iter_mut().for_each(share_words);
        self.conditions = conditions.into();
        if sharing.lists.len() < MAX_LISTS {
            sharing.lists.insert(self.conditions.clone());
        }
    }
}

/// There are few of them.
impl Shareable for VersionBlockStatus {
    fn share(&mut self, _: &mut Sharing) {}
}

fn share_words(condition: &mut Condition) {
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    for text in [&mut condition.kind, &mut condition.reason, &mut condition.message] {
        let known = words.get(&**text).copied();
        let constant = known.or_else(|| {
            let room = words.len() < MAX_WORDS && text.len() <= MAX_WORD;
            let constant: Option<&'static str> = room.then(|| &*Box::leak(Box::<str>::from(&**text)));
            words.extend(constant);
            constant
        });
        if let Some(constant) = constant {
            *text = Cow::Borrowed(constant);
        }
    }
}

#[cfg(test)]
mod tests {
    use resources::Timestamp;
    use resources::condition::Truth;

    use super::*;

    fn status(message: &str, time: i64) -> RemoteInstanceStatus {
        let condition = Condition {
            kind: Cow::Owned("Ready".to_owned()),
            status: Truth::True,
            reason: Cow::Owned("Serving".to_owned()),
            message: Cow::Owned(message.to_owned()),
            last_transition_time: Timestamp(time),
            observed_generation: None,
        };
        RemoteInstanceStatus { conditions: vec![condition].into(), ..RemoteInstanceStatus::default() }
    }

    fn shared(sharing: &mut Sharing, message: &str, time: i64) -> RemoteInstanceStatus {
        let mut shared = status(message, time);
        shared.share(sharing);
        assert_eq!(shared, status(message, time), "nothing else is said");
        shared
    }

    #[test]
    fn equal_lists_are_one_and_words_of_others_are_constants() {
        let mut sharing = Sharing::default();
        let one = shared(&mut sharing, "Visitors reach it.", 1);
        let same = shared(&mut sharing, "Visitors reach it.", 1);
        assert!(std::ptr::eq(one.conditions.as_ptr(), same.conditions.as_ptr()));
        let later = shared(&mut sharing, "Visitors reach it.", 2);
        assert!(!std::ptr::eq(one.conditions.as_ptr(), later.conditions.as_ptr()));
        for (one, later) in one.conditions.iter().zip(&later.conditions) {
            assert!(matches!(later.message, Cow::Borrowed(_)));
            assert!(std::ptr::eq(one.message.as_ptr(), later.message.as_ptr()));
        }
    }

    #[test]
    fn long_texts_stay_texts() {
        let long = shared(&mut Sharing::default(), &"x".repeat(MAX_WORD + 1), 1);
        assert!(long.conditions.iter().all(|each| matches!(each.message, Cow::Owned(_))));
    }
}
