//! Changes of a table, cut into parts.

use std::sync::Arc;

use hashbrown::HashMap;
use policy::{Product, VersionBlock};
use prost::Message as _;
use route_table::{HostName, InstanceId, Route};

use crate::limits::{MAX_BLOCK_LISTS, PART_BYTES};
use crate::{Position, wire, write_route};

/// What one stream was told: which lists of blocks have which number there.
#[derive(Debug, Default)]
pub struct UpdateWriter {
    /// By address; `kept` keeps addresses from being used again.
    numbers: HashMap<(usize, Product), u32>,
    kept: Vec<Arc<[VersionBlock]>>,
}

/// Parts of one update, made one by one: a large table is never in memory twice.
#[derive(Debug)]
pub struct Written<'a, C, R> {
    writer: &'a mut UpdateWriter,
    to: Position,
    from: Option<Position>,
    domain: String,
    changed: C,
    removed: R,
    ended: bool,
}

impl UpdateWriter {
    /// Has this stream too many lists for another change? Then the next update has to be everything.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= MAX_BLOCK_LISTS / 2
    }

    /// Everything.
    pub fn everything<'a, C>(
        &'a mut self,
        to: Position,
        domain: &HostName,
        routes: C,
    ) -> Written<'a, C, std::iter::Empty<InstanceId>>
    where
        C: Iterator<Item = Arc<Route>>,
    {
        self.numbers.clear();
        self.kept.clear();
        self.write(to, None, domain, routes, std::iter::empty())
    }

    /// What changed since `from`, which this stream has.
    pub fn change<'a, C, R>(
        &'a mut self,
        to: Position,
        from: Position,
        domain: &HostName,
        changed: C,
        removed: R,
    ) -> Written<'a, C, R>
    where
        C: Iterator<Item = Arc<Route>>,
        R: Iterator<Item = InstanceId>,
    {
        self.write(to, Some(from), domain, changed, removed)
    }

    fn write<'a, C, R>(
        &'a mut self,
        to: Position,
        from: Option<Position>,
        domain: &HostName,
        changed: C,
        removed: R,
    ) -> Written<'a, C, R> {
        let domain = domain.to_string();
        Written { writer: self, to, from, domain, changed, removed, ended: false }
    }

    /// The number of a route's list, and the list where it is new to this stream.
    fn number(&mut self, route: &Route) -> (u32, Option<wire::BlockList>) {
        if route.blocks.is_empty() {
            return (0, None);
        }
        let key = (route.blocks.as_ptr().addr(), route.product.clone());
        if let Some(number) = self.numbers.get(&key) {
            return (*number, None);
        }
        self.kept.push(Arc::clone(&route.blocks));
        let number = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
        self.numbers.insert(key, number);
        (number, Some(write_route::block_list(number, route.product.as_str(), &route.blocks)))
    }
}

impl<C, R> Iterator for Written<'_, C, R>
where
    C: Iterator<Item = Arc<Route>>,
    R: Iterator<Item = InstanceId>,
{
    type Item = wire::Update;

    fn next(&mut self) -> Option<wire::Update> {
        if self.ended {
            return None;
        }
        let mut part = wire::Update {
            to: Some(self.to.into()),
            from: self.from.map(Into::into),
            domain: self.domain.clone(),
            ..wire::Update::default()
        };
        let mut bytes = 0;
        while bytes < PART_BYTES {
            if let Some(id) = self.removed.next() {
                bytes += id.as_str().len() + 4;
                part.removed.push(id.to_string());
            } else if let Some(route) = self.changed.next() {
                let (number, list) = self.writer.number(&route);
                bytes += list.as_ref().map_or(0, prost::Message::encoded_len);
                part.block_lists.extend(list);
                let route = write_route::route(&route, number);
                bytes += route.encoded_len() + 4;
                part.routes.push(route);
            } else {
                part.last = true;
                self.ended = true;
                break;
            }
        }
        Some(part)
    }
}
