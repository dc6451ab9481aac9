//! An installation's settings: a document in a folder, a `ConfigMap` in a cluster. Not a custom resource.

use policy::UnknownVersion;
use route_table::HostName;
use serde::{Deserialize, Serialize};

/// The document, as a folder holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Installation {
    /// `latchkey.dev/v1alpha1`
    pub api_version: String,
    /// `Installation`
    pub kind: String,
    /// Its name: what `spec.installation` of an instance says.
    pub metadata: InstallationName,
    /// The settings.
    pub spec: InstallationSpec,
}

/// Its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallationName {
    /// Its name.
    pub name: String,
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallationSpec {
    /// Instances get names below it; agents get sessions at `connect.` in front of it.
    pub domain: HostName,
    /// Does it serve instances that name no installation?
    #[serde(default = "yes")]
    pub default: bool,
    /// Namespaces it serves; empty means all.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// What a version that cannot be told means.
    #[serde(default)]
    pub unknown_version: UnknownVersion,
    /// Labels nobody gets, besides `connect`.
    #[serde(default)]
    pub reserved_labels: Vec<String>,
    /// How long a released label goes to nobody else.
    #[serde(default = "ninety")]
    pub quarantine_days: u32,
    /// Port in URLs, where it is not 443.
    #[serde(default = "https")]
    pub public_port: u16,
    /// Where agents connect, if not at `connect.<domain>:443`: `HOST:PORT`.
    #[serde(default)]
    pub tunnel_address: Option<String>,
}

fn yes() -> bool {
    true
}

fn ninety() -> u32 {
    90
}

fn https() -> u16 {
    443
}
