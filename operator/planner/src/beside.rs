//! Looking things up for many instances in the order of their ids.

use std::cmp::Ordering;
use std::iter::Peekable;

use imbl::OrdMap;
use route_table::InstanceId;

use crate::ordered::Ordered;

/// A map beside a list of ids. For a few ids it is searched; for all of them, in order, it is walked along, since a
/// search costs many comparisons of texts far apart in memory.
pub(crate) enum Beside<'a, V> {
    Search(Find<'a, V>),
    Walk(Peekable<Rest<'a, V>>),
}

type Find<'a, V> = Box<dyn Fn(&InstanceId) -> Option<&'a V> + 'a>;
type Rest<'a, V> = Box<dyn Iterator<Item = (&'a InstanceId, &'a V)> + 'a>;

impl<'a, V> Beside<'a, V> {
    /// For a few ids, or for all from one on if that one is given.
    pub(crate) fn facts(map: &'a OrdMap<InstanceId, V>, all_from: Option<&InstanceId>) -> Self {
        match all_from {
            None => Self::Search(Box::new(|id| map.get(id))),
            Some(first) => Self::walk(map.range::<_, InstanceId>(first..)),
        }
    }

    /// The same in what a plan remembers.
    pub(crate) fn remembered(map: &'a Ordered<InstanceId, V>, all_from: Option<&InstanceId>) -> Self {
        match all_from {
            None => Self::Search(Box::new(|id| map.get(id))),
            Some(first) => Self::walk(map.iter_from(first)),
        }
    }

    fn walk(all: impl Iterator<Item = (&'a InstanceId, &'a V)> + 'a) -> Self {
        let all: Rest<'a, V> = Box::new(all);
        Self::Walk(all.peekable())
    }

    /// What the map has for an id, which must not come before the one asked for last.
    pub(crate) fn get(&mut self, id: &InstanceId) -> Option<&'a V> {
        match self {
            Self::Search(find) => find(id),
            Self::Walk(rest) => loop {
                let (next, value) = *rest.peek()?;
                match next.cmp(id) {
                    Ordering::Less => drop(rest.next()),
                    Ordering::Equal => return Some(value),
                    Ordering::Greater => return None,
                }
            },
        }
    }
}
