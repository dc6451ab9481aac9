//! A small world to plan for.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "helpers of several tests, and a helper that fails is a test that fails"
)]

use std::sync::Arc;

use planner::{Inventory, Plan, Previous, Seed, Settings, Timestamp, plan};
use resources::condition::{Condition, Truth};
use resources::{Observed, RemoteInstanceStatus};
use route_table::InstanceId;
use serde_json::{Value, json};

/// An hour at which things begin.
pub(crate) const START: i64 = 1_795_255_200;

/// A world, and what its planner remembers.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub inventory: Inventory,
    pub previous: Previous,
    pub now: i64,
}

pub(crate) fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

pub(crate) fn settings(spec: &Value) -> Settings {
    let mut whole = json!({"domain": "ui.example.com"});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    Settings {
        name: "default".to_owned(),
        spec: serde_json::from_value(whole).unwrap(),
        seed: Seed::new([7; 32]),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let inventory = Inventory {
            settings: Arc::new(settings(&json!({}))),
            instances: imbl::OrdMap::new(),
            blocks: imbl::OrdMap::new(),
            facts: planner::Facts::default(),
        };
        Self { inventory, previous: Previous::default(), now: START }
    }

    pub(crate) fn settings(&mut self, spec: &Value) {
        self.inventory.settings = Arc::new(settings(spec));
    }

    /// Writes an instance; `object` is its spec, or its spec with metadata.
    pub(crate) fn instance(&mut self, name: &str, spec: &Value) {
        self.instance_with(name, spec, &json!({}));
    }

    pub(crate) fn instance_with(&mut self, name: &str, spec: &Value, metadata: &Value) {
        let (namespace, own) = name.split_once('/').unwrap();
        let mut object = json!({
            "apiVersion": "latchkey.dev/v1alpha1", "kind": "RemoteInstance",
            "metadata": {"namespace": namespace, "name": own, "generation": 1}, "spec": spec,
        });
        for (key, value) in metadata.as_object().unwrap() {
            object["metadata"][key] = value.clone();
        }
        self.inventory.instances.insert(id(name), Arc::new(Observed::read(object).unwrap()));
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.inventory.instances.remove(&id(name)).unwrap();
    }

    pub(crate) fn block(&mut self, name: &str, spec: &Value) {
        let object = json!({
            "apiVersion": "latchkey.dev/v1alpha1", "kind": "VersionBlock",
            "metadata": {"name": name, "generation": 1}, "spec": spec,
        });
        self.inventory.blocks.insert(name.to_owned(), Arc::new(Observed::read(object).unwrap()));
    }

    /// Plans once.
    pub(crate) fn plan(&mut self) -> Plan {
        let (plan, previous) = plan(&self.inventory, &self.previous, Timestamp(self.now));
        plan.table(&self.inventory.settings.spec.domain).unwrap();
        self.inventory.facts.released = plan.released.clone();
        self.previous = previous;
        plan
    }

    /// Plans, lets the one proxy apply it, and plans again. The events of both.
    pub(crate) fn settle(&mut self) -> Plan {
        let first = self.plan();
        self.inventory.facts.applied = planner::Applied { ready_proxies: 1, revision: Some(first.revision) };
        let mut second = self.plan();
        assert_eq!(first.revision, second.revision, "applying a route changes none");
        let mut events = first.events;
        events.append(&mut second.events);
        Plan { events, ..second }
    }
}

pub(crate) fn status<'a>(plan: &'a Plan, name: &str) -> &'a RemoteInstanceStatus {
    plan.instances.get(name).unwrap()
}

pub(crate) fn condition<'a>(plan: &'a Plan, name: &str, kind: &str) -> &'a Condition {
    status(plan, name).conditions.iter().find(|each| each.kind == kind).unwrap()
}

/// Truth and reason of a condition.
pub(crate) fn says(plan: &Plan, name: &str, kind: &str) -> (Truth, String) {
    let condition = condition(plan, name, kind);
    (condition.status, condition.reason.to_string())
}

/// Names of a route.
pub(crate) fn served(plan: &Plan, name: &str) -> Vec<String> {
    plan.routes
        .get(name)
        .map(|route| route.hostnames.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

/// Does a visitor get in?
pub(crate) fn is_served(plan: &Plan, name: &str) -> bool {
    let Some(route) = plan.routes.get(name) else { return false };
    let version = status(plan, name).version.as_ref();
    let version = version.map(|told| policy::ReportedVersion::read(&told.effective, route.product.scheme()));
    route.refusal().is_none() && route.admit(version.as_ref()).is_admitted()
}
