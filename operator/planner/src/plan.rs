//! What a plan says.

use std::sync::Arc;

use imbl::OrdMap;
use resources::{RemoteInstanceStatus, VersionBlockStatus};
use route_table::{InstanceId, Route};

use crate::inventory::{Inventory, ReleasedLabel, Timestamp};

/// What is to be done, and to be told.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Goes up by one whenever `routes` differ from the plan before.
    pub revision: u64,
    /// Every instance proxies should know of. An instance without a route is unknown to them.
    pub routes: OrdMap<InstanceId, Arc<Route>>,
    /// The status of every instance of this installation.
    pub instances: OrdMap<InstanceId, Arc<RemoteInstanceStatus>>,
    /// The status of every version block.
    pub blocks: OrdMap<String, Arc<VersionBlockStatus>>,
    /// What happened since the plan before.
    pub events: Vec<Event>,
    /// Labels given up that nobody else gets yet: to be kept, and given back as a fact.
    pub released: OrdMap<String, ReleasedLabel>,
    /// When the passing of time alone changes something.
    pub next_run: Option<Timestamp>,
}

/// Something that happened, told to people beside the object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// About which object.
    pub about: Subject,
    /// Is it bad news?
    pub kind: EventKind,
    /// One word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A `RemoteInstance`.
    Instance(InstanceId),
    /// A `VersionBlock`.
    Block(String),
}

/// Is it bad news?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// No.
    Normal,
    /// Yes.
    Warning,
}

/// What the plan before decided, and what of it can be used again.
#[derive(Debug, Clone, Default)]
pub struct Previous {}

/// Makes the plan.
pub fn plan(inventory: &Inventory, previous: &Previous, now: Timestamp) -> (Plan, Previous) {
    let _ = (inventory, previous, now);
    unimplemented!()
}
