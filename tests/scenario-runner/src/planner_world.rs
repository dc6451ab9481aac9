//! The planner alone: keeps objects as an API server would.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use planner::{Facts, Inventory, Plan, Previous, Seed, Settings, plan};
use resources::{
    AGENT_KEYS_ANNOTATION, Installation, Observed, Parts, RemoteInstance, Timestamp, VersionBlock,
};
use route_table::InstanceId;
use serde_json::{Value, json};

use crate::file::ObjectRef;
use crate::names::SEED;
use crate::surroundings::Surroundings;
use crate::world::{Instant, Outcome, World};

/// The planner, with everything around it played.
#[derive(Debug, Default)]
pub struct PlannerWorld {
    objects: BTreeMap<ObjectRef, Value>,
    /// Statuses as they were written last; an API server gives them back with the objects.
    statuses: BTreeMap<ObjectRef, Value>,
    surroundings: Surroundings,
    previous: Previous,
}

impl World for PlannerWorld {
    fn play(&mut self, instant: &Instant<'_>) -> Result<Outcome, String> {
        for object in instant.apply {
            self.write(object, instant.now)?;
        }
        for gone in instant.delete {
            self.objects.remove(gone).ok_or_else(|| format!("there is no {gone} to delete"))?;
        }
        let whole = self.inventory(instant)?;
        if instant.restart {
            self.surroundings.restart();
            let facts = self.surroundings.facts.clone();
            self.previous = Previous::restore(&Inventory { facts, ..whole.clone() });
        }
        let previous = &mut self.previous;
        let outcome = self.surroundings.play(instant, |facts| {
            let inventory = Inventory { facts: facts.clone(), ..whole.clone() };
            let (made, next) = plan(&inventory, previous, instant.now);
            same_from_decisions(&inventory, previous, &made, instant.now)?;
            *previous = next;
            Ok(made)
        })?;
        self.write_statuses(&outcome)?;
        Ok(outcome)
    }
}

impl PlannerWorld {
    /// Writes an object, and what an API server writes into it.
    fn write(&mut self, object: &Value, now: Timestamp) -> Result<(), String> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = text("/metadata/name");
        let reference = match text("/kind") {
            "RemoteInstance" => ObjectRef::Instance(format!("{}/{name}", text("/metadata/namespace"))),
            _ => ObjectRef::Block(name.to_owned()),
        };
        let mut object = object.clone();
        let before = self.objects.get(&reference);
        let generation = match before {
            None => 1,
            Some(before) => {
                let generation = before.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(1);
                generation + i64::from(before.get("spec") != object.get("spec"))
            }
        };
        let created = before.and_then(|before| before.pointer("/metadata/creationTimestamp")).cloned();
        let metadata = object
            .pointer_mut("/metadata")
            .and_then(Value::as_object_mut)
            .ok_or("an object without metadata is refused by every API server")?;
        metadata.insert("generation".to_owned(), generation.into());
        metadata.insert("uid".to_owned(), reference.to_string().into());
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| created.unwrap_or_else(|| now.to_string().into()));
        self.objects.insert(reference, object);
        Ok(())
    }

    /// Writes the statuses of instances and blocks, so that the next plan finds them.
    fn write_statuses(&mut self, outcome: &Outcome) -> Result<(), String> {
        let Outcome { instances, blocks, .. } = outcome;
        let instances = instances
            .iter()
            .map(|(id, status)| Ok((ObjectRef::Instance(id.clone()), serde_json::to_value(status)?)));
        let blocks = blocks
            .iter()
            .map(|(name, status)| Ok((ObjectRef::Block(name.clone()), serde_json::to_value(status)?)));
        let written: Result<_, serde_json::Error> = instances.chain(blocks).collect();
        self.statuses = written.map_err(|error| format!("a status cannot be written: {error}"))?;
        Ok(())
    }

    /// Settings and objects; facts are not in it yet.
    fn inventory(&self, instant: &Instant<'_>) -> Result<Inventory, String> {
        let installation: Installation =
            serde_json::from_value(instant.installation.clone()).map_err(|error| error.to_string())?;
        let settings =
            Settings { name: installation.metadata.name, spec: installation.spec, seed: Seed::new(SEED) };
        let (mut instances, mut blocks) = (OrdMap::new(), OrdMap::new());
        for (reference, object) in &self.objects {
            let mut object = object.clone();
            if let (Some(status), Some(members)) = (self.statuses.get(reference), object.as_object_mut()) {
                members.insert("status".to_owned(), status.clone());
            }
            match reference {
                ObjectRef::Instance(id) => {
                    if let Some(keys) = instant.enrolled.get(id) {
                        enrol(&mut object, keys);
                    }
                    let id: InstanceId = id.parse().map_err(|error| format!("{id}: {error}"))?;
                    instances.insert(id, read::<RemoteInstance>(object)?);
                }
                ObjectRef::Block(name) => {
                    blocks.insert(name.clone(), read::<VersionBlock>(object)?);
                }
            }
        }
        Ok(Inventory { settings: Arc::new(settings), instances, blocks, facts: Facts::default() })
    }
}

fn read<T: Parts>(object: Value) -> Result<Arc<Observed<T>>, String> {
    Observed::read(object).map(Arc::new)
}

/// What the planner may use of the plan before spares it work, and changes nothing else.
fn same_from_decisions(
    inventory: &Inventory,
    previous: &Previous,
    made: &Plan,
    now: Timestamp,
) -> Result<(), String> {
    let (whole, _) = plan(inventory, &previous.decisions_alone(), now);
    let same = whole.routes == made.routes
        && whole.instances == made.instances
        && whole.blocks == made.blocks
        && whole.events == made.events
        && whole.next_run == made.next_run
        && whole.released == made.released;
    if same {
        Ok(())
    } else {
        Err("planned without what was worked out before it is another plan".to_owned())
    }
}

/// Adds enrolled keys to an object's annotation, as an operator does.
fn enrol(object: &mut Value, keys: &[String]) {
    let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    let Some(annotations) = annotations.as_object_mut() else { return };
    let written = annotations.get(AGENT_KEYS_ANNOTATION).and_then(Value::as_str).unwrap_or_default();
    let mut all: Vec<&str> = written.split(',').filter(|key| !key.is_empty()).collect();
    all.extend(keys.iter().map(String::as_str));
    let all = all.join(",");
    if !all.is_empty() {
        annotations.insert(AGENT_KEYS_ANNOTATION.to_owned(), all.into());
    }
}
