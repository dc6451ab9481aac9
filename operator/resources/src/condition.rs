//! Conditions, as kstatus, `kubectl wait` and tools that deploy from Git read them.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
