//! Which instance is looked at next. Pure.

use std::collections::{BTreeMap, BTreeSet};

use route_table::InstanceId;
use tokio::time::Instant;

/// Instances and when each is to be looked at.
#[derive(Debug, Default)]
pub(super) struct Queue {
    known: BTreeMap<InstanceId, Instant>,
    due: BTreeSet<(Instant, InstanceId)>,
}

impl Queue {
    /// Looks at it then, and not when it was planned before.
    pub(super) fn put(&mut self, id: &InstanceId, at: Instant) {
        self.remove(id);
        self.known.insert(id.clone(), at);
        self.due.insert((at, id.clone()));
    }

    /// The same, if it is not planned.
    pub(super) fn put_if_absent(&mut self, id: &InstanceId, at: Instant) {
        if !self.known.contains_key(id) {
            self.put(id, at);
        }
    }

    pub(super) fn remove(&mut self, id: &InstanceId) {
        if let Some(at) = self.known.remove(id) {
            self.due.remove(&(at, id.clone()));
        }
    }

    /// Takes whoever is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<InstanceId> {
        let (at, id) = self.due.first()?;
        if *at > now {
            return None;
        }
        let id = id.clone();
        self.remove(&id);
        Some(id)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_stands_in_it_once_at_the_time_told_last() {
        let [a, b]: [InstanceId; 2] = ["homes/a", "homes/b"].map(|id| id.parse().unwrap());
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut queue = Queue::default();
        queue.put(&a, now);
        queue.put(&a, later);
        queue.put_if_absent(&a, now);
        queue.put(&b, later);
        assert_eq!((queue.next(), queue.take(now)), (Some(later), None));
        assert_eq!(queue.take(later), Some(a));
        queue.remove(&b);
        assert_eq!((queue.take(later), queue.next()), (None, None));
    }
}
