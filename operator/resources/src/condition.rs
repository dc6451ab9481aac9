//! Conditions, as kstatus, `kubectl wait` and tools that deploy from Git read them.

use std::borrow::{Borrow, Cow};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Timestamp;

/// Is it so?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Truth {
    /// Yes.
    True,
    /// No.
    False,
    /// Nobody can tell yet.
    Unknown,
}

/// One thing that is known about an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about, e.g. Ready.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub kind: Cow<'static, str>,
    /// Is it so?
    pub status: Truth,
    /// One word for programs, e.g. Blocked.
    #[schemars(length(max = 1024))]
    pub reason: Cow<'static, str>,
    /// A sentence for people.
    #[schemars(length(max = 32768))]
    pub message: Cow<'static, str>,
    /// When the status changed last (RFC 3339).
    pub last_transition_time: Timestamp,
    /// The generation of the object this was said about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// The same, the time of the change aside?
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.kind, self.status, &self.reason, &self.message, self.observed_generation)
            == (&other.kind, other.status, &other.reason, &other.message, other.observed_generation)
    }
}

/// The conditions of a status. Statuses that say the same share one list, which most of a large fleet do.
#[derive(Debug, Clone, Eq)]
pub struct Conditions(Arc<[Condition]>);

impl PartialEq for Conditions {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Hash for Conditions {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Conditions {
    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl Deref for Conditions {
    type Target = [Condition];

    fn deref(&self) -> &[Condition] {
        &self.0
    }
}

impl Borrow<[Condition]> for Conditions {
    fn borrow(&self) -> &[Condition] {
        &self.0
    }
}

impl From<Vec<Condition>> for Conditions {
    fn from(list: Vec<Condition>) -> Self {
        Self(list.into())
    }
}

impl<'a> IntoIterator for &'a Conditions {
    type Item = &'a Condition;
    type IntoIter = std::slice::Iter<'a, Condition>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Serialize for Conditions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (*self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

impl JsonSchema for Conditions {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Conditions".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<Condition>::json_schema(generator)
    }
}
