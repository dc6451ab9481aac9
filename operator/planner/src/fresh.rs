//! What objects that were read again ask for.

use std::sync::Arc;

use route_table::InstanceId;

use crate::wish::Wish;

/// An instance and what it asks for; `None` where it is gone or not ours.
pub(crate) type Wished = (InstanceId, Option<Arc<Wish>>);

/// Instances whose objects were read again, in the order of their ids. A sorted list, since almost always it is filled in order, and once.
#[derive(Debug, Default)]
pub(crate) struct Fresh(Vec<Wished>);

impl Fresh {
    /// Of those who are here, in order, and those who are gone.
    pub(crate) fn of(here: Vec<Wished>, gone: Vec<InstanceId>) -> Self {
        let mut all = here;
        if !gone.is_empty() {
            all.extend(gone.into_iter().map(|id| (id, None)));
            all.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        Self(all)
    }

    pub(crate) fn insert(&mut self, id: InstanceId, wish: Option<Arc<Wish>>) {
        match self.place(&id) {
            Ok(at) => {
                if let Some((_, known)) = self.0.get_mut(at) {
                    *known = wish;
                }
            }
            Err(at) => self.0.insert(at, (id, wish)),
        }
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<&Option<Arc<Wish>>> {
        let (_, wish) = self.0.get(self.place(id).ok()?)?;
        Some(wish)
    }

    pub(crate) fn all(&self) -> &[Wished] {
        &self.0
    }

    fn place(&self, id: &InstanceId) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if last < id => Err(self.0.len()),
            _ => self.0.binary_search_by(|(known, _)| known.cmp(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_in_order_and_an_id_is_there_once() {
        let id = |text: &str| text.parse::<InstanceId>().unwrap();
        let mut fresh = Fresh::of(vec![(id("b/b"), None)], vec![id("a/a")]);
        for text in ["c/c", "a/b", "c/c"] {
            fresh.insert(id(text), None);
        }
        let ids: Vec<_> = fresh.all().iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["a/a", "a/b", "b/b", "c/c"]);
        assert!(fresh.get(&id("a/b")).is_some() && fresh.get(&id("b/c")).is_none());
    }
}
