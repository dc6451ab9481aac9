//! What was seen and decided before, over restarts: the present holder of a name keeps it, ages and generations go on,
//! and an object that makes no sense now has a last good form.

use std::collections::BTreeMap;
use std::sync::Arc;

use resources::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::folder::{StateError, StateFolder};

const FILE: &str = "memory.json";
const VERSION: u32 = 1;
const HELP: &str =
    "mend it, or remove it: then names are given out as if for the first time, and labels given up are free";

/// All of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Memory {
    version: u32,
    /// The revision of the last plan: the next one is higher.
    pub(crate) revision: u64,
    /// By `kind/namespace/name`.
    pub(crate) objects: BTreeMap<String, Remembered>,
    /// Labels given up.
    pub(crate) released: BTreeMap<String, Released>,
}

/// What is known of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Remembered {
    /// When it was seen first.
    pub(crate) created: Timestamp,
    /// Goes up with every change of its spec.
    pub(crate) generation: i64,
    /// SHA-256 of the spec of that generation.
    pub(crate) spec: String,
    /// The file its last good form stood in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// Its last good form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) good: Option<Arc<Value>>,
    /// Its last status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Value>,
}

/// A label given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Released {
    pub(crate) by: String,
    pub(crate) at: Timestamp,
}

impl Memory {
    pub(crate) fn read(folder: &StateFolder) -> Result<Self, StateError> {
        let Some(memory) = folder.read_json::<Self>(FILE, HELP)? else { return Ok(Self::default()) };
        if memory.version != VERSION {
            let problem = format!("it has version {}, and this build knows {VERSION}", memory.version);
            return Err(folder.damaged(FILE, problem, HELP));
        }
        Ok(memory)
    }

    pub(crate) fn write(&self, folder: &StateFolder) -> Result<(), StateError> {
        folder.write_json(FILE, &Self { version: VERSION, ..self.clone() })
    }
}
