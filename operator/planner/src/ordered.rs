//! A map in order, made for plans: cheap to fill with many, cheap to copy, cheap to change one entry of a copy.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::{DiffItem, RangedIter};
use imbl::shared_ptr::DefaultSharedPtr;

/// Most entries of a run: what is copied when one of them changes.
const MOST: usize = 64;

/// From which part of all entries on it costs less to go through all than to look for each.
const MANY: usize = 16;

type Run<K, V> = Arc<Vec<(K, V)>>;

/// A map in order, whose copies share what is the same.
///
/// It is imbl's map, with a run of neighbours in the place of one entry. A map with an entry for each instance is
/// filled by insertion with 17 comparisons of texts for each of 100,000, which was a fifth of a plan, and leaves half
/// of its room empty. Runs are cut from a list in order, without any comparison, and are full.
#[derive(Clone)]
pub struct Ordered<K, V> {
    /// By a lower bound of the run's keys, which no key of the run before reaches. No run is empty.
    runs: OrdMap<K, Run<K, V>>,
    length: usize,
}

impl<K, V> Ordered<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl<K: Ord, V> Ordered<K, V> {
    /// Every entry, in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { runs: self.runs.range::<_, K>(..), run: [].iter() }
    }

    /// Entries from a little before a key on, in order.
    pub(crate) fn iter_from(&self, key: &K) -> Iter<'_, K, V> {
        let runs = match self.runs.get_prev(key) {
            Some((bound, _)) => self.runs.range::<_, K>(bound..),
            None => self.runs.range::<_, K>(..),
        };
        Iter { runs, run: [].iter() }
    }

    /// Every key, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Every value, in the order of the keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (_, run) = self.runs.get_prev(key)?;
        let at = run.binary_search_by(|(known, _)| known.borrow().cmp(key)).ok()?;
        run.get(at).map(|(_, value)| value)
    }

    /// Is there an entry of this key?
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Ord + Clone, V: Clone> Ordered<K, V> {
    /// Of entries in order, each key once.
    pub fn of(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let (mut entries, mut all) = (entries.into_iter(), Self::default());
        loop {
            let mut run = Vec::with_capacity(MOST);
            run.extend(entries.by_ref().take(MOST));
            let Some((first, _)) = run.first() else { return all };
            all.length += run.len();
            all.runs.insert(first.clone(), Arc::new(run));
        }
    }

    /// Puts a value in.
    pub fn insert(&mut self, key: K, value: V) {
        if self.runs.get_prev(&key).is_none() {
            // It comes before all others: the first run's bound goes down to it. Or there is no run yet.
            let first = self.runs.get_min().map(|(bound, _)| bound.clone());
            let run = first.and_then(|bound| self.runs.remove(&bound)).unwrap_or_default();
            self.runs.insert(key.clone(), run);
        }
        let Some((_, run)) = self.runs.get_prev_mut(&key) else { return };
        let run = Arc::make_mut(run);
        match run.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(at) => {
                if let Some((_, known)) = run.get_mut(at) {
                    *known = value;
                }
            }
            Err(at) => {
                run.insert(at, (key, value));
                self.length += 1;
                if run.len() > MOST {
                    let half = run.split_off(run.len() / 2);
                    if let Some((first, _)) = half.first() {
                        self.runs.insert(first.clone(), Arc::new(half));
                    }
                }
            }
        }
    }

    /// Takes an entry away.
    pub fn remove(&mut self, key: &K) {
        let Some((bound, run)) = self.runs.get_prev_mut(key) else { return };
        let Ok(at) = run.binary_search_by(|(known, _)| known.cmp(key)) else { return };
        self.length -= 1;
        if run.len() == 1 {
            let bound = bound.clone();
            self.runs.remove(&bound);
        } else {
            Arc::make_mut(run).remove(at);
        }
    }

    /// The same map with other values for some keys, which come in order, each once; `None` takes the entry away.
    #[must_use]
    pub(crate) fn changed(mut self, changes: Vec<(K, Option<V>)>) -> Self {
        if changes.len() < self.len() / MANY {
            for (key, value) in changes {
                match value {
                    Some(value) => self.insert(key, value),
                    None => self.remove(&key),
                }
            }
            return self;
        }
        let mut all = Vec::with_capacity(self.len() + changes.len());
        let mut known = self.iter().peekable();
        let kept = |(key, value): (&K, &V)| (key.clone(), value.clone());
        for (key, value) in changes {
            while let Some(before) = known.next_if(|(before, _)| **before < key) {
                all.push(kept(before));
            }
            known.next_if(|(before, _)| **before == key);
            all.extend(value.map(|value| (key, value)));
        }
        all.extend(known.map(kept));
        Self::of(all)
    }
}

impl<K: Ord, V: PartialEq> Ordered<K, V> {
    /// What makes this out of `before`, in order: the value of each key that is new or has another one, and `None` for
    /// each key that is gone. Costs no more than what the two do not share.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Vec<(&'a K, Option<&'a V>)> {
        let (mut was, mut is) = (Vec::new(), Vec::new());
        for difference in before.runs.diff(&self.runs) {
            match difference {
                DiffItem::Add(_, run) => is.push(run),
                DiffItem::Remove(_, run) => was.push(run),
                DiffItem::Update { old: (_, old), new: (_, new) } => {
                    was.push(old);
                    is.push(new);
                }
            }
        }
        // Runs of one map never overlap, and come in order.
        let mut was = was.into_iter().flat_map(|run| run.iter()).peekable();
        let mut changes = Vec::new();
        for (key, value) in is.into_iter().flat_map(|run| run.iter()) {
            while let Some((gone, _)) = was.next_if(|(before, _)| before < key) {
                changes.push((gone, None));
            }
            let known = was.next_if(|(before, _)| before == key);
            if known.is_none_or(|(_, known)| known != value) {
                changes.push((key, Some(value)));
            }
        }
        changes.extend(was.map(|(gone, _)| (gone, None)));
        changes
    }
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Self { runs: OrdMap::default(), length: 0 }
    }
}

/// Entries in any order; of several with one key the last counts.
impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Ordered<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self::of(entries.into_iter().collect::<BTreeMap<_, _>>())
    }
}

impl<K: Ord + PartialEq, V: PartialEq> PartialEq for Ordered<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.runs.ptr_eq(&other.runs) || (self.length == other.length && self.iter().eq(other))
    }
}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for Ordered<K, V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self).finish()
    }
}

impl<Q: Ord + ?Sized, K: Ord + Borrow<Q>, V> Index<&Q> for Ordered<K, V> {
    type Output = V;

    #[allow(
        clippy::panic,
        reason = "an index panics, as that of every map does; whoever does not know asks `get`"
    )]
    fn index(&self, key: &Q) -> &V {
        match self.get(key) {
            Some(value) => value,
            None => panic!("there is no entry of this key"),
        }
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a Ordered<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

/// The entries of an [`Ordered`], in order.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    runs: RangedIter<'a, K, Run<K, V>, DefaultSharedPtr>,
    run: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.run.next() {
                return Some((key, value));
            }
            self.run = self.runs.next()?.1.iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(entries: &BTreeMap<u16, u8>) -> Ordered<u16, u8> {
        Ordered::of(entries.iter().map(|(key, value)| (*key, *value)))
    }

    fn assert_same(map: &Ordered<u16, u8>, expected: &BTreeMap<u16, u8>) {
        assert!(map.iter().eq(expected), "{map:?} {expected:?}");
        assert_eq!((map.len(), map.is_empty()), (expected.len(), expected.is_empty()));
        assert!(*map == of(expected));
        assert!(map.runs.values().all(|run| (1..=MOST).contains(&run.len())), "{:?}", map.runs);
        for key in 0..400 {
            assert_eq!(map.get(&key), expected.get(&key));
            let (from, from_expected) = (map.iter_from(&key), expected.range(key..));
            assert!(from.skip_while(|(at, _)| **at < key).eq(from_expected), "from {key}");
        }
    }

    fn key() -> impl Strategy<Value = u16> {
        // Some keys come again and again, so that runs are emptied.
        prop_oneof![0..8_u16, 0..400_u16]
    }

    fn entries() -> impl Strategy<Value = BTreeMap<u16, u8>> {
        // Now and then more than one run, which is what can go wrong.
        prop_oneof![
            prop::collection::btree_map(key(), any::<u8>(), 0..10),
            prop::collection::btree_map(0..400_u16, any::<u8>(), 60..300),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map_in_order_whatever_is_done_to_it(
            entries in entries(),
            edits in prop::collection::vec((key(), prop::option::of(any::<u8>())), 0..200),
        ) {
            let (before, mut map, mut expected) = (of(&entries), of(&entries), entries.clone());
            for (key, value) in edits {
                if let Some(value) = value {
                    map.insert(key, value);
                    expected.insert(key, value);
                } else {
                    map.remove(&key);
                    expected.remove(&key);
                }
            }
            assert_same(&map, &expected);
            assert_same(&before, &entries);
        }

        #[test]
        fn many_changes_at_once_are_the_same_changes(
            entries in entries(),
            changes in prop::collection::btree_map(key(), prop::option::of(any::<u8>()), 0..100),
        ) {
            let (before, mut expected) = (of(&entries), entries.clone());
            for (key, value) in &changes {
                match value {
                    Some(value) => drop(expected.insert(*key, *value)),
                    None => drop(expected.remove(key)),
                }
            }
            assert_same(&before.clone().changed(changes.into_iter().collect()), &expected);
            assert_same(&before, &entries);
        }
    }

    proptest! {
        #[test]
        fn changes_make_one_map_out_of_the_other(before in entries(), now in entries(), anew in any::<bool>()) {
            let (first, mut second) = (of(&before), of(&now));
            if !anew {
                // The way plans go: most of it shared.
                let gone = before.keys().filter(|key| !now.contains_key(key)).map(|key| (*key, None));
                let here = now.iter().map(|(key, value)| (*key, Some(*value)));
                let changes: BTreeMap<_, _> = gone.chain(here).collect();
                second = first.clone();
                for (key, value) in changes {
                    match value {
                        Some(value) => second.insert(key, value),
                        None => second.remove(&key),
                    }
                }
            }
            let expected: BTreeMap<_, _> = before.keys().chain(now.keys())
                .filter(|key| before.get(key) != now.get(key))
                .map(|key| (*key, now.get(key).copied()))
                .collect();
            let changes = second.changes_since(&first);
            assert!(changes.iter().map(|(key, value)| (**key, value.copied())).eq(expected));
            assert!(second.changes_since(&second).is_empty());
        }
    }

    #[test]
    fn a_copy_shares_what_is_the_same() {
        let before = Ordered::of((0..1_000).map(|key| (key, Arc::new(key))));
        let mut edited = before.clone();
        edited.insert(500, Arc::new(0));
        let shared = before.iter().zip(&edited).filter(|(one, other)| std::ptr::eq(one.0, other.0)).count();
        assert!(shared >= 1_000 - MOST, "{shared}");
    }
}
