//! Looking things up for many instances in the order of their ids.

use std::iter::Peekable;

use imbl::OrdMap;
use imbl::ordmap::RangedIter;
use imbl::shared_ptr::DefaultSharedPtr;
use route_table::InstanceId;

/// A map beside a list of ids. For a few ids it is searched; for all of them, in order, it is walked along, since a
/// search costs many comparisons of texts far apart in memory.
pub(crate) enum Beside<'a, V> {
    Search(&'a OrdMap<InstanceId, V>),
    Walk(Peekable<RangedIter<'a, InstanceId, V, DefaultSharedPtr>>),
}

impl<'a, V> Beside<'a, V> {
    /// For ids from `first` on, all of them.
    pub(crate) fn from(first: &InstanceId, map: &'a OrdMap<InstanceId, V>) -> Self {
        Self::Walk(map.range::<_, InstanceId>(first..).peekable())
    }

    /// What the map has for an id, which must not come before the one asked for last.
    pub(crate) fn get(&mut self, id: &InstanceId) -> Option<&'a V> {
        match self {
            Self::Search(map) => map.get(id),
            Self::Walk(rest) => {
                while rest.next_if(|(next, _)| *next < id).is_some() {}
                rest.next_if(|(next, _)| *next == id).map(|(_, value)| value)
            }
        }
    }
}
