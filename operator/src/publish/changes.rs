//! What is different in a table, told shortly: a version block changes every route of a fleet in the same way. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use operator_link::Relisting;
use route_table::{InstanceId, Route};

use super::history::Routes;

/// So many changes are told one by one, whatever they are, and however few routes there are.
pub(super) const FEW: usize = 1_000;

/// What makes one table out of another.
#[derive(Debug, Default)]
pub(crate) struct Changes<'a> {
    /// Every route that is new, different or gone.
    pub(crate) all: Vec<(&'a InstanceId, Option<&'a Route>)>,
    /// What many of them have in common.
    pub(crate) relisted: Vec<Relisting>,
    /// Those of whom that does not say everything.
    pub(crate) rest: Vec<(&'a InstanceId, Option<&'a Route>)>,
}

/// A list of blocks, of a product; lists without blocks are one.
type List<'a> = (usize, &'a str);

fn list(route: &Route) -> List<'_> {
    let address = if route.blocks.is_empty() { 0 } else { route.blocks.as_ptr().addr() };
    (address, route.product.as_str())
}

/// Those who have a list.
#[derive(Default)]
struct Having<'a> {
    routes: usize,
    /// Of them, those that changed in whatever way.
    changed: usize,
    /// Those that have another list now, and are the same otherwise: by that list one of them, before and now, and how
    /// many.
    moved: HashMap<List<'a>, (&'a Route, &'a Route, usize)>,
}

/// Compares two tables.
pub(crate) fn changes<'a>(from: &'a Routes, to: &'a Routes) -> Changes<'a> {
    let all = to.changes_since(from);
    if all.len() <= FEW {
        return Changes { rest: all.clone(), relisted: Vec::new(), all };
    }
    let mut having: HashMap<List<'_>, Having<'_>> = HashMap::new();
    for route in from.values() {
        having.entry(list(route)).or_default().routes += 1;
    }
    // The route before and the route now, where another list is all that is different.
    let mut moved = Vec::with_capacity(all.len());
    for (id, now) in &all {
        let before = from.get(*id);
        let pair = before.zip(*now).filter(|(before, now)| is_moved(before, now));
        moved.push(pair);
        let Some(having) = before.and_then(|before| having.get_mut(&list(before))) else { continue };
        having.changed += 1;
        if let Some((before, now)) = pair {
            having.moved.entry(list(now)).or_insert((before, now, 0)).2 += 1;
        }
    }
    // A list takes the place of another for all of them, or for nobody.
    let relisted: Vec<Relisting> = having
        .into_values()
        .filter(|having| having.routes == having.changed)
        .filter_map(|having| {
            let (before, now, _) = having.moved.into_values().max_by_key(|(_, _, moved)| *moved)?;
            let (from, to) = (Arc::clone(&before.blocks), Arc::clone(&now.blocks));
            Some(Relisting { product: before.product.clone(), from, to, routes: having.routes })
        })
        .collect();
    let is_told = |(before, now): (&Route, &Route)| {
        relisted.iter().any(|relisting| relisting.concerns(before) && relisting.gives(now))
    };
    let rest = all.iter().zip(moved).filter(|(_, moved)| !moved.is_some_and(is_told));
    let rest = rest.map(|(change, _)| *change).collect();
    Changes { all, relisted, rest }
}

/// Is another list of blocks all that is different?
fn is_moved(before: &Route, now: &Route) -> bool {
    list(before) != list(now) && before.differs_in_blocks_alone(now)
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
