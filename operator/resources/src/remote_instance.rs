//! `RemoteInstance`: one instance behind NAT, and how it may be reached.

#![expect(clippy::duplicated_attributes, reason = "columns have types in common")]

use kube::CustomResource;
use policy::Product;
use route_table::{Cidr, Fingerprint, HostName, MAX_BLOCK_NAME_LENGTH, MAX_TUNNELS};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::{MAX_ACCEPTED_BLOCKS, MAX_NOTE_LENGTH, MAX_RATE};
use crate::condition::Conditions;
use crate::{Parts, Timestamp, quoted, schema};

/// What its owner wants.
// `status` and `printcolumn` are what `kubectl get ri` shows; the wide ones need `-o wide`.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "latchkey.dev",
    version = "v1alpha1",
    kind = "RemoteInstance",
    namespaced,
    shortname = "ri",
    category = "latchkey",
    doc = "An instance behind NAT, and how it may be reached from outside.",
    status = "RemoteInstanceStatus",
    derive = "PartialEq",
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Connected", type_ = "boolean", json_path = ".status.tunnel.connected"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version.effective"),
    printcolumn(
        name = "Blocked",
        type_ = "string",
        json_path = ".status.blockedBy",
        description = "Version blocks in force"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Product", type_ = "string", json_path = ".spec.product", priority = 1),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoteInstanceSpec {
    /// Which installation serves it; empty means the default one. Cannot be changed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(schema_with = "schema::installation")]
    pub installation: String,
    /// Is remote access on? Off until asked for.
    #[serde(default)]
    pub enabled: bool,
    /// The label under the installation's domain, e.g. lake-house; without one a random name is assigned. Once set it
    /// cannot be changed. Removing it gives the name up: nobody else gets it for 90 days, unless the installation says
    /// otherwise, and the instance goes on under its random name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub hostname: Option<String>,
    /// Domains of its own, e.g. home.example.com, served once DNS shows that they are meant: status.hostnames says which
    /// record to make. No wildcards; names in other scripts as punycode; case and a trailing dot do not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::host_names")]
    pub custom_domains: Vec<HostName>,
    /// What it runs, home-assistant-core unless said otherwise; decides how versions compare.
    #[serde(default)]
    #[schemars(schema_with = "schema::product")]
    pub product: Product,
    /// Its version, used only while nothing is reported. Always in quotes: 2023.10 without them is the number 2023.1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "quoted::optional")]
    #[schemars(schema_with = "schema::version")]
    pub version: Option<String>,
    /// Version blocks accepted at the owner's risk, by name: a new block blocks again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ACCEPTED_BLOCKS))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub accepted_blocks: Vec<AcceptedBlock>,
    /// SHA-256 of the public keys of its agents, 64 hex digits each, as latchkey-agent key prints them. Agents that join
    /// with a token need no entry here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::fingerprints")]
    pub agent_keys: Vec<Fingerprint>,
    /// Live tunnels allowed at once, 1 unless said otherwise; visitors are spread over them.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = MAX_TUNNELS))]
    pub tunnels: i32,
    /// SHA-256 fingerprints of certificates that a person has looked at after an alarm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::fingerprints")]
    pub acknowledged_certificates: Vec<Fingerprint>,
    /// Who may visit, and how much.
    #[serde(default)]
    pub access: Access,
}

fn one() -> i32 {
    1
}

/// A block that the owner accepts at own risk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcceptedBlock {
    /// Name of the version block.
    #[schemars(schema_with = "schema::block_name")]
    pub name: String,
    /// Why that is fine here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = MAX_NOTE_LENGTH))]
    pub reason: String,
    /// Who decided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = MAX_BLOCK_NAME_LENGTH))]
    pub by: String,
}

/// Who may visit, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Access {
    /// Networks visitors may come from, e.g. 192.0.2.0/24 or a single address; empty means everyone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::networks")]
    pub allow_networks: Vec<Cidr>,
    /// Networks visitors may not come from, whatever is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::networks")]
    pub deny_networks: Vec<Cidr>,
    /// Visitor connections at once, 512 unless said otherwise.
    #[schemars(range(min = 1, max = MAX_RATE))]
    pub max_connections: i32,
    /// New visitor connections a minute from one client address, 120 unless said otherwise.
    #[schemars(range(min = 1, max = MAX_RATE))]
    pub new_connections_per_minute_per_client: i32,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            deny_networks: Vec::new(),
            max_connections: 512,
            new_connections_per_minute_per_client: 120,
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
// One installation tells all of it: that it owns each member would be noted in every object, longer than what is told.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct RemoteInstanceStatus {
    /// The generation of the object that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where visitors reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Every name asked for, and what became of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<HostnameStatus>,
    /// The version that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// Names of the version blocks in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<String>,
    /// Its tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelStatus>,
    /// The certificate it says it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// What is known of it.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
}

/// A name and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostnameStatus {
    /// The name.
    pub name: String,
    /// Under the installation's domain, or the instance's own.
    pub kind: HostnameKind,
    /// Does it lead to the instance?
    pub state: HostnameState,
    /// Why, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The DNS record that proves a custom domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// Where a name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HostnameKind {
    /// Given by the installation: random, or the label asked for.
    Assigned,
    /// The instance's own domain.
    Custom,
}

/// Does a name lead to the instance?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HostnameState {
    /// Yes.
    Serving,
    /// Not before DNS shows that it is meant.
    PendingVerification,
    /// Another instance has it, or nobody may.
    Conflict,
}

/// A DNS record to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// TXT or CNAME.
    #[serde(rename = "type")]
    pub kind: String,
    /// The record's name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The version that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// The version.
    pub effective: String,
    /// Who says so.
    pub source: VersionSource,
}

/// Who told a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VersionSource {
    /// The instance's agent.
    Reported,
    /// The spec.
    Declared,
}

/// A tunnel, without addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TunnelStatus {
    /// Is it up?
    pub connected: bool,
    /// Since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The agent's own version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// SniTun version it speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<i32>,
}

/// A certificate as the instance reported it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateStatus {
    /// What a browser shows, 64 hex digits.
    pub fingerprint_sha256: String,
    /// Names inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Who signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Until when it holds (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The ACME account that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_account_uri: Option<String>,
}

impl Parts for RemoteInstance {
    type Spec = RemoteInstanceSpec;
    type Status = RemoteInstanceStatus;
}
