//! Changes of a table, cut into parts.

use std::sync::Arc;

use hashbrown::HashMap;
use policy::{Product, VersionBlock};
use prost::Message as _;
use route_table::{HostName, InstanceId, Relisting, Route};

use crate::limits::{MAX_BLOCK_LISTS, PART_BYTES};
use crate::{Position, RELISTS_SINCE, wire, write_route};

/// What one stream was told: which lists of blocks have which number there.
#[derive(Debug, Default)]
pub struct UpdateWriter {
    /// By address; `kept` keeps addresses from being used again.
    numbers: HashMap<(usize, Product), u32>,
    kept: Vec<Arc<[VersionBlock]>>,
    /// Was all that the other end has told on this stream? Otherwise it has lists without a number.
    told_everything: bool,
}

/// What is different in a table.
#[derive(Debug)]
pub struct Changes<C, R> {
    /// Lists of blocks that take the place of others. Only those that [`UpdateWriter::can_relist`].
    pub relisted: Vec<Relisting>,
    /// New routes, and those of which anything else changed.
    pub changed: C,
    /// Routes that are gone.
    pub removed: R,
}

/// Parts of one update, made one by one: a large table is never in memory twice.
#[derive(Debug)]
pub struct Written<'a, C, R> {
    writer: &'a mut UpdateWriter,
    to: Position,
    from: Option<Position>,
    domain: String,
    changes: Changes<C, R>,
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
        C: Iterator<Item = Route>,
    {
        self.numbers.clear();
        self.kept.clear();
        self.told_everything = true;
        let changes = Changes { relisted: Vec::new(), changed: routes, removed: std::iter::empty() };
        self.write(to, None, domain, changes)
    }

    /// Can lists take the place of others on this stream, which speaks this contract?
    pub fn can_relist(&self, contract: u32, relisted: &[Relisting]) -> bool {
        let is_known = |relisting: &Relisting| {
            relisting.from.is_empty()
                || self.numbers.contains_key(&Self::key(&relisting.from, &relisting.product))
        };
        contract >= RELISTS_SINCE && self.told_everything && relisted.iter().all(is_known)
    }

    /// What changed since `from`, which this stream has.
    pub fn change<'a, C, R>(
        &'a mut self,
        to: Position,
        from: Position,
        domain: &HostName,
        changes: Changes<C, R>,
    ) -> Written<'a, C, R>
    where
        C: Iterator<Item = Route>,
        R: Iterator<Item = InstanceId>,
    {
        self.write(to, Some(from), domain, changes)
    }

    fn write<'a, C, R>(
        &'a mut self,
        to: Position,
        from: Option<Position>,
        domain: &HostName,
        changes: Changes<C, R>,
    ) -> Written<'a, C, R> {
        Written { writer: self, to, from, domain: domain.to_string(), changes, ended: false }
    }

    fn key(blocks: &Arc<[VersionBlock]>, product: &Product) -> (usize, Product) {
        (blocks.as_ptr().addr(), product.clone())
    }

    /// The number of a list, and the list where it is new to this stream.
    fn number(&mut self, blocks: &Arc<[VersionBlock]>, product: &Product) -> (u32, Option<wire::BlockList>) {
        if blocks.is_empty() {
            return (0, None);
        }
        let key = Self::key(blocks, product);
        if let Some(number) = self.numbers.get(&key) {
            return (*number, None);
        }
        self.kept.push(Arc::clone(blocks));
        let number = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
        self.numbers.insert(key, number);
        (number, Some(write_route::block_list(number, product.as_str(), blocks)))
    }
}

impl<C, R> Iterator for Written<'_, C, R>
where
    C: Iterator<Item = Route>,
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
            if let Some(Relisting { product, from, to, routes }) = self.changes.relisted.pop() {
                let (from, _) = self.writer.number(&from, &product);
                let (to, list) = self.writer.number(&to, &product);
                bytes += list.as_ref().map_or(0, prost::Message::encoded_len) + 16;
                part.block_lists.extend(list);
                let routes = u32::try_from(routes).unwrap_or(u32::MAX);
                part.relisted.push(wire::Relisted { from, to, routes });
            } else if let Some(id) = self.changes.removed.next() {
                bytes += id.as_str().len() + 4;
                part.removed.push(id.to_string());
            } else if let Some(route) = self.changes.changed.next() {
                let (number, list) = self.writer.number(&route.blocks, &route.product);
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
