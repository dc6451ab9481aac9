//! `VersionBlock`: versions of a product that may not be reached from outside.

use kube::CustomResource;
use policy::{BlockAction, Product};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, schema};

/// A finding about versions of a product.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "latchkey.dev",
    version = "v1alpha1",
    kind = "VersionBlock",
    shortname = "vb",
    status = "VersionBlockStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VersionBlockSpec {
    /// Which product.
    #[serde(default)]
    #[schemars(schema_with = "schema::product")]
    pub product: Product,
    /// The versions meant: those inside any of these ranges; "a, b" inside one means both. Cannot be changed: a new
    /// finding is a new block.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub versions: Vec<String>,
    /// What is wrong with them.
    #[schemars(length(min = 1, max = 2048))]
    pub reason: String,
    /// A link with more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub more_info: Option<String>,
    /// Block, or Warn: counts and warns, blocks nobody.
    #[serde(default)]
    #[schemars(schema_with = "action")]
    pub action: BlockAction,
}

fn action(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "enum": ["Block", "Warn"]})
}

/// What it does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
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
