//! `VersionBlock`: versions of a product that may not be reached from outside.

#![expect(clippy::duplicated_attributes, reason = "columns have types in common")]

use kube::CustomResource;
use policy::{BlockAction, Product, RangeError, VersionRange};
use route_table::MAX_BLOCK_TEXT_LENGTH;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Parts, quoted, schema};

/// A finding about versions of a product.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "latchkey.dev",
    version = "v1alpha1",
    kind = "VersionBlock",
    shortname = "vb",
    category = "latchkey",
    doc = "Versions of a product that may not be reached from outside.",
    status = "VersionBlockStatus",
    derive = "PartialEq",
    printcolumn(name = "Product", type_ = "string", json_path = ".spec.product"),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Matched", type_ = "integer", json_path = ".status.matched"),
    printcolumn(name = "Blocked", type_ = "integer", json_path = ".status.blocked"),
    printcolumn(name = "Accepted", type_ = "integer", json_path = ".status.accepted"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = 1)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VersionBlockSpec {
    /// Which product, home-assistant-core unless said otherwise. Cannot be changed.
    #[serde(default)]
    #[schemars(schema_with = "schema::block_product")]
    pub product: Product,
    /// The versions meant: those inside any of these ranges, e.g. "<=2021.1.4" or ">=2023.1, <2023.3.2", where the comma
    /// means "and". Always in quotes. Cannot be changed: a new finding is a new block.
    #[serde(deserialize_with = "quoted::list")]
    #[schemars(schema_with = "schema::ranges")]
    pub versions: Vec<String>,
    /// What is wrong with them.
    #[schemars(length(min = 1, max = MAX_BLOCK_TEXT_LENGTH))]
    pub reason: String,
    /// A link with more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::link")]
    pub more_info: Option<String>,
    /// Block, or Warn: counts and warns, blocks nobody.
    #[serde(default)]
    #[schemars(schema_with = "schema::action")]
    pub action: BlockAction,
}

impl VersionBlockSpec {
    /// Its ranges, and those that cannot be read with their places in `versions`.
    pub fn ranges(&self) -> (Vec<VersionRange>, Vec<(usize, RangeError)>) {
        let scheme = self.product.scheme();
        let (mut ranges, mut unreadable) = (Vec::new(), Vec::new());
        for (at, text) in self.versions.iter().enumerate() {
            match VersionRange::parse(text, scheme) {
                Ok(range) => ranges.push(range),
                Err(error) => unreadable.push((at, error)),
            }
        }
        (ranges, unreadable)
    }
}

/// What it does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
// One installation tells all of it: that it owns each member would be noted in every object, longer than what is told.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct VersionBlockStatus {
    /// The generation of the object that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Instances whose version it names.
    pub matched: i64,
    /// Those of them that it keeps out (Warn: would keep out).
    pub blocked: i64,
    /// Those of them whose owner accepted it.
    pub accepted: i64,
    /// What is known of it.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl Parts for VersionBlock {
    type Spec = VersionBlockSpec;
    type Status = VersionBlockStatus;
}
