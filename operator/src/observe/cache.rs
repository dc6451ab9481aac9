//! The objects of a kind as they stand, kept up with a watch. Pure: events go in.

use std::collections::HashSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use planner::Subject;
use resources::Observed;

use super::digest::{Digest, Said};
use super::listed::{Kind, Listed};
use super::sharing::{Shareable, Sharing};

/// What the API server has of an object's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// What it says; `None` where there is none, or one that makes no sense.
    pub digest: Option<Digest>,
    /// The object's version, which rises with every write.
    pub revision: u64,
}

/// What an event changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Nothing that anybody looks at.
    Nothing,
    /// Statuses alone. Those are the leader's own, so there is no reason to plan again.
    Statuses,
    /// Objects: spec, generation, annotations, or that they are there.
    Objects,
}

/// The objects of a kind.
#[derive(Debug, Clone)]
pub(super) struct Set<T: Kind> {
    pub(super) objects: OrdMap<T::Key, Arc<Observed<T>>>,
    pub(super) told: OrdMap<T::Key, Told>,
    /// Whole statuses, until the first plan has taken them.
    statuses: Option<OrdMap<T::Key, Arc<T::Status>>>,
    /// Those of which this installation told something, as long.
    ours: OrdSet<T::Key>,
    /// Its field manager.
    manager: Arc<str>,
    /// What those have in common.
    sharing: Sharing,
}

impl<T: Kind> Default for Set<T> {
    fn default() -> Self {
        Self {
            objects: OrdMap::new(),
            told: OrdMap::new(),
            statuses: Some(OrdMap::new()),
            ours: OrdSet::new(),
            manager: Arc::default(),
            sharing: Sharing::default(),
        }
    }
}

impl<T: Kind> Set<T> {
    /// A set of an installation, by its field manager.
    pub(super) fn of(manager: &Arc<str>) -> Self {
        Self { manager: Arc::clone(manager), ..Self::default() }
    }

    /// The objects of whose statuses this installation told something; none once the statuses were taken.
    pub(super) fn take_ours(&mut self) -> impl Iterator<Item = Subject> + use<T> {
        std::mem::take(&mut self.ours).into_iter().map(T::subject)
    }

    /// The whole statuses, which are kept no longer: whoever plans has them from here on.
    pub(super) fn take_statuses(&mut self) -> OrdMap<T::Key, Arc<T::Status>> {
        self.sharing = Sharing::default();
        self.statuses.take().unwrap_or_default()
    }

    /// Reads an object. One that is what it was stays the very same, so that nothing is worked out again for it.
    pub(super) fn read(&mut self, listed: Listed<T>) -> Option<Entry<T>> {
        let key = listed.key()?;
        let digest = listed.status.as_ref().map(Said::digest);
        let told = Told { digest, revision: listed.revision() };
        let known = self.objects.get(&key).filter(|known| ***known == listed.object);
        let object = known.cloned().unwrap_or_else(|| Arc::new(listed.object));
        let mut status = listed.status.filter(|_| self.statuses.is_some());
        if let Some(status) = &mut status {
            status.share(&mut self.sharing);
        }
        let status = status.map(Arc::new);
        let ours = listed.told_by.iter().any(|manager| **manager == *self.manager);
        Some(Entry { key, told, object, status, ours })
    }

    /// An object was written.
    pub(super) fn put(&mut self, entry: Entry<T>) -> Change {
        let Entry { key, told, object, status, ours } = entry;
        let mut change = Change::Nothing;
        if let Some(statuses) = &mut self.statuses {
            match status {
                Some(status) => drop(statuses.insert(key.clone(), status)),
                None => drop(statuses.remove(&key)),
            }
            if ours {
                self.ours.insert(key.clone());
            } else {
                self.ours.remove(&key);
            }
        }
        if self.told.get(&key) != Some(&told) {
            self.told.insert(key.clone(), told);
            change = Change::Statuses;
        }
        if self.objects.get(&key).is_none_or(|known| !Arc::ptr_eq(known, &object)) {
            self.objects.insert(key, object);
            change = Change::Objects;
        }
        change
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, key: &T::Key) -> Change {
        self.told.remove(key);
        if let Some(statuses) = &mut self.statuses {
            statuses.remove(key);
            self.ours.remove(key);
        }
        if self.objects.remove(key).is_some() { Change::Objects } else { Change::Nothing }
    }

    /// Everything that a watch sees, at once: what it did not list is gone.
    pub(super) fn replace(&mut self, listed: Vec<Entry<T>>, sees: impl Fn(&T::Key) -> bool) -> Change {
        let found: HashSet<&T::Key> = listed.iter().map(|entry| &entry.key).collect();
        let gone: Vec<T::Key> =
            self.objects.keys().filter(|key| sees(key) && !found.contains(key)).cloned().collect();
        drop(found);
        let removed = gone.iter().map(|key| self.remove(key)).max();
        let put = listed.into_iter().map(|entry| self.put(entry)).max();
        removed.max(put).unwrap_or(Change::Nothing)
    }
}

/// An object that was read.
#[derive(Debug)]
pub(super) struct Entry<T: Kind> {
    pub(super) key: T::Key,
    told: Told,
    object: Arc<Observed<T>>,
    status: Option<Arc<T::Status>>,
    ours: bool,
}

#[cfg(test)]
mod tests {
    use resources::RemoteInstance;
    use route_table::InstanceId;
    use serde_json::{Value, json};

    use super::super::listed::tests::{instance, listed};
    use super::*;

    type Instances = Set<RemoteInstance>;

    fn put(set: &mut Instances, object: Value) -> Change {
        let entry = set.read(listed(object)).unwrap();
        set.put(entry)
    }

    fn list(set: &mut Instances, objects: impl IntoIterator<Item = Value>) -> Change {
        let entries = objects.into_iter().map(|object| set.read(listed(object)).unwrap()).collect();
        set.replace(entries, |_| true)
    }

    fn lake(version: u64, url: &str) -> Value {
        instance("lake", version, &json!({"enabled": true}), &json!({"url": url}))
    }

    #[test]
    fn a_status_that_was_written_changes_no_object() {
        let mut set = Instances::default();
        assert_eq!(put(&mut set, lake(1, "https://a")), Change::Objects);
        let (objects, told) = (set.objects.clone(), set.told.clone());
        assert_eq!(put(&mut set, lake(2, "https://b")), Change::Statuses);
        assert!(set.objects.ptr_eq(&objects), "the whole map is the same");
        assert_ne!(set.told, told);
        assert_eq!(put(&mut set, lake(2, "https://b")), Change::Nothing);
        // The same told again by another write: only the version rises.
        let digest = set.told["homes/lake"].digest;
        assert_eq!(put(&mut set, lake(3, "https://b")), Change::Statuses);
        assert_eq!(set.told["homes/lake"], Told { digest, revision: 3 });
    }

    #[test]
    fn a_spec_that_was_written_changes_the_object() {
        let mut set = Instances::default();
        put(&mut set, lake(1, "https://a"));
        let switched_off = instance("lake", 2, &json!({}), &json!({"url": "https://a"}));
        assert_eq!(put(&mut set, switched_off), Change::Objects);
        assert_eq!(set.remove(&"homes/lake".parse().unwrap()), Change::Objects);
        assert!(set.objects.is_empty() && set.told.is_empty());
        assert_eq!(set.remove(&"homes/lake".parse().unwrap()), Change::Nothing);
    }

    #[test]
    fn a_second_list_keeps_what_is_the_same_and_drops_what_is_gone() {
        let mut set = Instances::default();
        let other = |name: &str, version| instance(name, version, &json!({}), &json!({}));
        list(&mut set, [lake(1, "https://a"), other("gone", 2), other("changed", 3)]);
        let before = set.objects.clone();
        let again = [lake(1, "https://a"), instance("changed", 9, &json!({"tunnels": 2}), &json!({}))];
        assert_eq!(list(&mut set, again), Change::Objects);
        assert_eq!(
            set.objects.keys().map(InstanceId::as_str).collect::<Vec<_>>(),
            ["homes/changed", "homes/lake"]
        );
        assert!(Arc::ptr_eq(&set.objects["homes/lake"], &before["homes/lake"]));
        assert!(!Arc::ptr_eq(&set.objects["homes/changed"], &before["homes/changed"]));
        let objects = set.objects.clone();
        let same = [lake(1, "https://a"), instance("changed", 9, &json!({"tunnels": 2}), &json!({}))];
        assert_eq!(list(&mut set, same), Change::Nothing);
        assert!(set.objects.ptr_eq(&objects));
    }

    #[test]
    fn a_list_of_one_namespace_takes_nothing_from_another() {
        let mut set = Instances::default();
        list(&mut set, [lake(1, "https://a")]);
        assert_eq!(set.replace(Vec::new(), |id| id.as_str().starts_with("cabins/")), Change::Nothing);
        assert_eq!(set.objects.len(), 1);
    }

    #[test]
    fn what_this_installation_told_is_known_until_it_is_taken() {
        let manager: Arc<str> = "latchkey-operator-status/here".into();
        let mut set = Instances::of(&manager);
        put(&mut set, lake(1, "https://a"));
        let mut other = instance("other", 2, &json!({}), &json!({"url": "https://b"}));
        other["metadata"]["managedFields"] =
            json!([{"manager": "latchkey-operator-status/there", "fieldsV1": {"f:status": {}}}]);
        put(&mut set, other.clone());
        let lake_alone = [Subject::Instance("homes/lake".parse().unwrap())];
        assert_eq!(set.clone().take_ours().collect::<Vec<_>>(), lake_alone);
        // The other installation takes it all over.
        other["metadata"]["name"] = json!("lake");
        put(&mut set, other);
        assert_eq!(set.clone().take_ours().count(), 0);
        put(&mut set, lake(4, "https://a"));
        set.take_statuses();
        assert_eq!(set.take_ours().count(), 1);
        put(&mut set, lake(5, "https://a"));
        assert_eq!(set.take_ours().count(), 0);
    }

    #[test]
    fn whole_statuses_are_there_until_they_are_taken() {
        let mut set = Instances::default();
        put(&mut set, lake(1, "https://a"));
        put(&mut set, lake(2, "https://b"));
        let taken = set.take_statuses();
        assert_eq!(taken["homes/lake"].url.as_deref(), Some("https://b"));
        put(&mut set, lake(3, "https://c"));
        assert!(set.take_statuses().is_empty());
    }
}
