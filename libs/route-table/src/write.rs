//! Routes and tables as text: the members that a routes file has, so that what is written reads back equal.
//!
//! Members that say the default are left out, except `enabled`, which nobody should have to guess. What a route says
//! that this build does not know cannot be written: it never was understood.

use policy::{BlockAction, ReportedVersion, UnknownVersion, VersionBlock, VersionRange};
use serde::{Serialize, Serializer};

use crate::{AgentKey, Cidr, Fingerprint, HostName, InstanceId, Limits, Route, RouteTable, RouteTerms};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenTable<'a> {
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a HostName>,
    routes: Vec<&'a Route>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenRoute<'a> {
    id: &'a InstanceId,
    hostnames: &'a [HostName],
    enabled: bool,
    #[serde(skip_serializing_if = "is_first")]
    generation: u64,
    #[serde(skip_serializing_if = "is_default_product")]
    product: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "is_default")]
    unknown_version: UnknownVersion,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<WrittenBlock<'a>>,
    #[serde(skip_serializing_if = "is_empty")]
    accepted_blocks: &'a [String],
    #[serde(skip_serializing_if = "is_empty")]
    allow_networks: &'a [Cidr],
    #[serde(skip_serializing_if = "is_empty")]
    deny_networks: &'a [Cidr],
    #[serde(skip_serializing_if = "is_default")]
    limits: WrittenLimits,
    #[serde(skip_serializing_if = "is_one")]
    tunnels: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    agent_keys: Vec<WrittenKey<'a>>,
    #[serde(skip_serializing_if = "is_true")]
    park_visitors: bool,
    #[serde(skip_serializing_if = "is_default")]
    priority: i32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenBlock<'a> {
    name: &'a str,
    versions: &'a [VersionRange],
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    more_info: Option<&'a str>,
    #[serde(skip_serializing_if = "is_default")]
    action: BlockAction,
}

#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct WrittenLimits {
    max_connections: u32,
    new_connections_per_minute_per_client: u32,
}

impl Default for WrittenLimits {
    fn default() -> Self {
        Limits::default().into()
    }
}

impl From<Limits> for WrittenLimits {
    fn from(limits: Limits) -> Self {
        let Limits { max_connections, new_connections_per_minute_per_client } = limits;
        Self { max_connections, new_connections_per_minute_per_client }
    }
}

/// A key of the route's own generation is its fingerprint alone.
#[derive(Serialize)]
#[serde(untagged)]
enum WrittenKey<'a> {
    Alone(&'a Fingerprint),
    Full { fingerprint: &'a Fingerprint, generation: u64 },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_first(generation: &u64) -> bool {
    *generation == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_true(is: &bool) -> bool {
    *is
}

fn is_empty<T>(list: &&[T]) -> bool {
    list.is_empty()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_default_product(product: &&str) -> bool {
    *product == policy::DEFAULT_PRODUCT
}

impl<'a> From<&'a VersionBlock> for WrittenBlock<'a> {
    fn from(block: &'a VersionBlock) -> Self {
        let VersionBlock { name, ranges, reason, more_info, action } = block;
        Self { name, versions: ranges, reason, more_info: more_info.as_deref(), action: *action }
    }
}

impl<'a> From<&'a Route> for WrittenRoute<'a> {
    fn from(route: &'a Route) -> Self {
        // Without `..`: a new member has to be written, too.
        let RouteTerms {
            id,
            generation,
            hostnames,
            enabled,
            product,
            declared_version,
            unknown_version,
            accepted_blocks,
            allow_networks,
            deny_networks,
            limits,
            tunnels,
            agent_keys,
            park_visitors,
            priority,
            not_understood: _,
        } = &**route;
        let version = match declared_version {
            ReportedVersion::Unknown => None,
            known => known.text(),
        };
        let key = |AgentKey { fingerprint, generation: of }: &'a AgentKey| {
            if of == generation {
                WrittenKey::Alone(fingerprint)
            } else {
                WrittenKey::Full { fingerprint, generation: *of }
            }
        };
        Self {
            id,
            hostnames,
            enabled: *enabled,
            generation: *generation,
            product: product.as_str(),
            version,
            unknown_version: *unknown_version,
            blocks: route.blocks.iter().map(WrittenBlock::from).collect(),
            accepted_blocks,
            allow_networks,
            deny_networks,
            limits: (*limits).into(),
            tunnels: *tunnels,
            agent_keys: agent_keys.iter().map(key).collect(),
            park_visitors: *park_visitors,
            priority: *priority,
        }
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WrittenRoute::from(self).serialize(serializer)
    }
}

impl Serialize for RouteTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let routes = self.routes().collect();
        let written = WrittenTable { revision: self.revision, domain: self.domain.as_ref(), routes };
        written.serialize(serializer)
    }
}
