//! One route as it is written, and what it means.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hashbrown::HashMap;
use policy::{
    BlockAction, Product, ReportedVersion, UnknownVersion, VersionBlock, VersionRange, VersionScheme,
};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::error::RouteError;
use crate::{
    AgentKey, Limits, MAX_ACCEPTED_PER_ROUTE, MAX_AGENT_KEYS_PER_ROUTE, MAX_BLOCK_NAME_LENGTH,
    MAX_BLOCK_TEXT_LENGTH, MAX_BLOCKS_PER_ROUTE, MAX_HOST_NAMES_PER_ROUTE, MAX_NETWORKS_PER_LIST,
    MAX_RANGES_PER_BLOCK, MAX_TUNNELS, Route, RouteTerms,
};

/// A route as written: right types, values not looked at yet.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawRoute {
    id: String,
    #[serde(default = "first_generation")]
    generation: u64,
    hostnames: Vec<String>,
    #[serde(default = "yes")]
    enabled: bool,
    product: Option<String>,
    version: Option<VersionText>,
    unknown_version: Option<String>,
    #[serde(default)]
    blocks: Vec<RawBlock>,
    #[serde(default)]
    accepted_blocks: Vec<String>,
    #[serde(default)]
    allow_networks: Vec<String>,
    #[serde(default)]
    deny_networks: Vec<String>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default = "one_tunnel")]
    tunnels: u32,
    #[serde(default)]
    agent_keys: Vec<RawAgentKey>,
    #[serde(default = "yes")]
    park_visitors: bool,
    #[serde(default)]
    priority: i32,
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
struct RawBlock {
    name: String,
    versions: Vec<VersionText>,
    #[serde(default)]
    reason: String,
    more_info: Option<String>,
    action: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawLimits {
    max_connections: u32,
    new_connections_per_minute_per_client: u32,
}

impl Default for RawLimits {
    fn default() -> Self {
        let Limits { max_connections, new_connections_per_minute_per_client } = Limits::default();
        Self { max_connections, new_connections_per_minute_per_client }
    }
}

fn first_generation() -> u64 {
    1
}

fn yes() -> bool {
    true
}

fn one_tunnel() -> u32 {
    1
}

/// The text of a version or range. A number is refused: `2023.10` has become `2023.1` by then.
#[derive(PartialEq, Eq, Hash)]
struct VersionText(String);

impl<'de> Deserialize<'de> for VersionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = VersionText;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter
                    .write_str("a version in quotes, e.g. \"2023.10\" (a bare number loses its last zero)")
            }

            fn visit_str<E>(self, text: &str) -> Result<VersionText, E> {
                Ok(VersionText(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// An agent key, as a bare fingerprint or with its generation.
struct RawAgentKey {
    fingerprint: String,
    generation: Option<u64>,
}

impl<'de> Deserialize<'de> for RawAgentKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Full {
            fingerprint: String,
            generation: Option<u64>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawAgentKey;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a fingerprint in quotes, or {fingerprint, generation}")
            }

            fn visit_str<E>(self, text: &str) -> Result<RawAgentKey, E> {
                Ok(RawAgentKey { fingerprint: text.to_owned(), generation: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawAgentKey, A::Error> {
                let Full { fingerprint, generation } = Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawAgentKey { fingerprint, generation })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What routes share: a hundred thousand of them mostly have the same few products, versions and blocks.
#[derive(Default)]
pub(crate) struct Shared {
    products: HashMap<String, Product>,
    versions: HashMap<(VersionScheme, String), ReportedVersion>,
    blocks: HashMap<(VersionScheme, Vec<RawBlock>), SharedBlocks>,
}

/// A block list, and what in it is not understood.
#[derive(Clone)]
struct SharedBlocks {
    blocks: Arc<[VersionBlock]>,
    not_understood: Arc<[String]>,
}

/// Which member is wrong, and what is wrong with it.
type Fault = (String, String);

/// Reads a member, and says which one it was if that fails.
fn read<T: FromStr>(field: impl fmt::Display, text: &str) -> Result<T, Fault>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| (field.to_string(), error.to_string()))
}

fn read_list<T: FromStr>(field: &str, texts: &[String], most: usize) -> Result<Vec<T>, Fault>
where
    T::Err: fmt::Display,
{
    at_most(field, texts.len(), most)?;
    texts.iter().enumerate().map(|(at, text)| read(format_args!("{field}[{at}]"), text)).collect()
}

fn at_most(field: impl fmt::Display, found: usize, most: usize) -> Result<(), Fault> {
    if found > most {
        Err((field.to_string(), format!("has {found} entries; the most is {most}")))
    } else {
        Ok(())
    }
}

fn within(field: &str, found: u32, least: u32, most: u32) -> Result<u32, Fault> {
    if (least..=most).contains(&found) {
        Ok(found)
    } else {
        Err((
            field.to_owned(),
            format!("is {found}; it can be {least} to {most} (to refuse everybody: enabled: false)"),
        ))
    }
}

impl RawRoute {
    /// What the route means. `unknown` are members nobody here knows.
    pub(crate) fn into_route(self, unknown: Vec<String>, shared: &mut Shared) -> Result<Route, RouteError> {
        let id = self.id.clone();
        self.understand(unknown, shared).map_err(|(field, problem)| RouteError { id, field, problem })
    }

    fn understand(self, unknown: Vec<String>, shared: &mut Shared) -> Result<Route, Fault> {
        let mut not_understood = unknown;
        let product = shared.product(self.product)?;
        let scheme = product.scheme();
        let unknown_version = match self.unknown_version.as_deref() {
            None | Some("Allow") => UnknownVersion::Allow,
            Some("Block") => UnknownVersion::Block,
            Some(other) => {
                not_understood.push(format!("unknownVersion: {}", shortened(other)));
                UnknownVersion::Block
            }
        };
        let blocks = shared.blocks(scheme, self.blocks)?;
        not_understood.extend_from_slice(&blocks.not_understood);
        at_most("acceptedBlocks", self.accepted_blocks.len(), MAX_ACCEPTED_PER_ROUTE)?;
        at_most("agentKeys", self.agent_keys.len(), MAX_AGENT_KEYS_PER_ROUTE)?;
        let agent_key = |(at, key): (usize, &RawAgentKey)| {
            let fingerprint = read(format_args!("agentKeys[{at}]"), &key.fingerprint)?;
            Ok(AgentKey { fingerprint, generation: key.generation.unwrap_or(self.generation) })
        };
        let RawLimits { max_connections, new_connections_per_minute_per_client } = self.limits;
        let terms = RouteTerms {
            id: read("id", &self.id)?,
            generation: self.generation,
            hostnames: read_list("hostnames", &self.hostnames, MAX_HOST_NAMES_PER_ROUTE)?,
            enabled: self.enabled,
            product,
            declared_version: self
                .version
                .map(|VersionText(text)| shared.version(scheme, text))
                .unwrap_or_default(),
            unknown_version,
            accepted_blocks: self.accepted_blocks,
            allow_networks: read_list("allowNetworks", &self.allow_networks, MAX_NETWORKS_PER_LIST)?,
            deny_networks: read_list("denyNetworks", &self.deny_networks, MAX_NETWORKS_PER_LIST)?,
            limits: Limits {
                max_connections: within("limits.maxConnections", max_connections, 1, u32::MAX)?,
                new_connections_per_minute_per_client: within(
                    "limits.newConnectionsPerMinutePerClient",
                    new_connections_per_minute_per_client,
                    1,
                    u32::MAX,
                )?,
            },
            tunnels: within("tunnels", self.tunnels, 1, MAX_TUNNELS)?,
            agent_keys: self.agent_keys.iter().enumerate().map(agent_key).collect::<Result<_, Fault>>()?,
            park_visitors: self.park_visitors,
            priority: self.priority,
            not_understood,
        };
        Ok(terms.route(blocks.blocks))
    }
}

impl Shared {
    fn product(&mut self, name: Option<String>) -> Result<Product, Fault> {
        let name = name.unwrap_or_else(|| policy::DEFAULT_PRODUCT.to_owned());
        if let Some(product) = self.products.get(&name) {
            return Ok(product.clone());
        }
        let product: Product = read("product", &name)?;
        self.products.insert(name, product.clone());
        Ok(product)
    }

    fn version(&mut self, scheme: VersionScheme, text: String) -> ReportedVersion {
        self.versions
            .entry((scheme, text))
            .or_insert_with_key(|(scheme, text)| ReportedVersion::read(text, *scheme))
            .clone()
    }

    fn blocks(&mut self, scheme: VersionScheme, raw: Vec<RawBlock>) -> Result<SharedBlocks, Fault> {
        at_most("blocks", raw.len(), MAX_BLOCKS_PER_ROUTE)?;
        let key = (scheme, raw);
        if let Some(found) = self.blocks.get(&key) {
            return Ok(found.clone());
        }
        let mut not_understood = Vec::new();
        let blocks = key.1.iter().map(|raw| raw.understand(scheme, &mut not_understood));
        let blocks = blocks.collect::<Result<_, Fault>>()?;
        let shared = SharedBlocks { blocks, not_understood: not_understood.into() };
        self.blocks.insert(key, shared.clone());
        Ok(shared)
    }
}

impl RawBlock {
    fn understand(
        &self,
        scheme: VersionScheme,
        not_understood: &mut Vec<String>,
    ) -> Result<VersionBlock, Fault> {
        let field = |member: &str| format!("blocks[{}].{member}", shortened(&self.name));
        if self.name.is_empty() || self.name.len() > MAX_BLOCK_NAME_LENGTH {
            return Err((field("name"), format!("is empty or longer than {MAX_BLOCK_NAME_LENGTH} bytes")));
        }
        at_most(field("versions"), self.versions.len(), MAX_RANGES_PER_BLOCK)?;
        if self.versions.is_empty() {
            return Err((
                field("versions"),
                "is empty; name the versions meant, e.g. [\"<=2021.1.4\"]".to_owned(),
            ));
        }
        for (member, text) in [("reason", Some(&self.reason)), ("moreInfo", self.more_info.as_ref())] {
            if text.is_some_and(|text| text.len() > MAX_BLOCK_TEXT_LENGTH) {
                return Err((field(member), format!("is longer than {MAX_BLOCK_TEXT_LENGTH} bytes")));
            }
        }
        let action = match self.action.as_deref() {
            None | Some("Block") => BlockAction::Block,
            Some("Warn") => BlockAction::Warn,
            Some(other) => {
                not_understood.push(format!("{}: {}", field("action"), shortened(other)));
                BlockAction::Block
            }
        };
        let range = |VersionText(text): &VersionText| {
            VersionRange::parse(text, scheme).map_err(|error| (field("versions"), error.to_string()))
        };
        Ok(VersionBlock {
            name: self.name.as_str().into(),
            ranges: self.versions.iter().map(range).collect::<Result<_, _>>()?,
            reason: self.reason.clone(),
            more_info: self.more_info.clone(),
            action,
        })
    }
}

/// A text for a message, not too long.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
