//! What a plan says, and the way to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use resources::{RemoteInstanceStatus, Timestamp, VersionBlockStatus};
use route_table::{HostName, InstanceId, Route, RouteTable, TableError};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::events::Event;
use crate::inventory::{Inventory, ReleasedLabel};
use crate::making::Making;
use crate::ordered::Ordered;
use crate::previous::Previous;

/// What is to be done, and to be told. Shown as data, it has `revision`, `routes` (a list, as in a routes file),
/// `instances` and `blocks` (statuses by id and name), `events`, `released` and `nextRun`. Publish `routes` first; then [`Plan::published`] gives the statuses to write.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Goes up by one whenever `routes` differ from the plan before, and with the first plan.
    pub revision: u64,
    /// Every instance proxies should know of. An instance without a route is unknown to them.
    pub routes: Ordered<InstanceId, Route>,
    /// The status of every instance of this installation.
    pub instances: Ordered<InstanceId, Arc<RemoteInstanceStatus>>,
    /// The status of every version block.
    pub blocks: OrdMap<String, Arc<VersionBlockStatus>>,
    /// What happened since the plan before: about instances in the order of their ids, then about blocks.
    pub events: Vec<Event>,
    /// Labels given up that nobody else gets yet: to be kept, and given back as a fact.
    pub released: OrdMap<String, ReleasedLabel>,
    /// When the passing of time alone changes something.
    pub next_run: Option<Timestamp>,
}

/// A plan whose routes have been handed to the proxies: what a writer of statuses asks for, so that no status is ahead
/// of the routes.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a>(&'a Plan);

impl<'a> Published<'a> {
    /// The status of every instance.
    pub fn instances(self) -> &'a Ordered<InstanceId, Arc<RemoteInstanceStatus>> {
        &self.0.instances
    }

    /// The status of every version block.
    pub fn blocks(self) -> &'a OrdMap<String, Arc<VersionBlockStatus>> {
        &self.0.blocks
    }

    /// What happened.
    pub fn events(self) -> &'a [Event] {
        &self.0.events
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { revision, routes, instances, blocks, events, released, next_run } = self;
        let mut plan = serializer.serialize_struct("Plan", 7)?;
        plan.serialize_field("revision", revision)?;
        plan.serialize_field("routes", &routes.values().collect::<Vec<_>>())?;
        plan.serialize_field("instances", &shown(instances.iter()))?;
        plan.serialize_field("blocks", &shown(blocks.iter()))?;
        plan.serialize_field("events", events)?;
        plan.serialize_field("released", &released.iter().collect::<BTreeMap<_, _>>())?;
        plan.serialize_field("nextRun", next_run)?;
        plan.end()
    }
}

fn shown<'a, K: Ord, V>(all: impl Iterator<Item = (&'a K, &'a Arc<V>)>) -> BTreeMap<&'a K, &'a V> {
    all.map(|(key, value)| (key, &**value)).collect()
}

impl Plan {
    /// What may be told once this revision was handed to the proxies; `None` while it is an older one.
    pub fn published(&self, revision: u64) -> Option<Published<'_>> {
        (revision >= self.revision).then_some(Published(self))
    }

    /// The table that proxies get. Two routes of a plan are never in each other's way, so there is an error only beyond
    /// the most routes a table can have.
    pub fn table(&self, domain: &HostName) -> Result<RouteTable, TableError> {
        RouteTable::from_routes(self.revision, Some(domain.clone()), self.routes.values().cloned())
    }
}

/// Makes the plan: reads what changed, decides who has which name and key, then decides about everybody whom that or
/// anything else concerns.
///
/// The result depends on the arguments alone. Whether `previous` spares work or not, the result is the same.
pub fn plan(inventory: &Inventory, previous: &Previous, now: Timestamp) -> (Plan, Previous) {
    let mut making = Making::begin(inventory, previous, now);
    making.read_objects();
    making.release_labels();
    making.settle_claims();
    making.decide_instances();
    making.finish()
}
