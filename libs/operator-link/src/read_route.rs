//! Messages as routes: as strict as a routes file.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hashbrown::HashMap;
use policy::{
    BlockAction, Product, ReportedVersion, UnknownVersion, VersionBlock, VersionRange, VersionScheme,
};
use route_table::{
    AgentKey, Fingerprint, Limits, MAX_ACCEPTED_PER_ROUTE, MAX_AGENT_KEYS_PER_ROUTE, MAX_BLOCK_NAME_LENGTH,
    MAX_BLOCK_TEXT_LENGTH, MAX_BLOCKS_PER_ROUTE, MAX_HOST_NAMES_PER_ROUTE, MAX_NETWORKS_PER_LIST,
    MAX_RANGES_PER_BLOCK, MAX_TUNNELS, Route, RouteError, RouteTerms,
};

use crate::wire;

/// Texts that are remembered to be shared; more are read anew each time.
const MAX_SHARED: usize = 65_536;

/// Restrictions of later contracts that this build knows: none yet.
const UNDERSTOOD: [&str; 0] = [];

/// Which member is wrong, and what is wrong with it.
type Fault = (String, String);

/// A list of blocks as it was read.
#[derive(Debug, Clone)]
pub(crate) struct BlockList {
    pub(crate) product: Product,
    pub(crate) blocks: Arc<[VersionBlock]>,
    not_understood: Arc<[String]>,
}

impl BlockList {
    pub(crate) fn is_understood(&self) -> bool {
        self.not_understood.is_empty()
    }
}

/// What many routes share, so that a hundred thousand of them do not hold it a hundred thousand times.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    products: HashMap<String, Product>,
    versions: HashMap<(VersionScheme, String), ReportedVersion>,
}

impl Shared {
    fn product(&mut self, name: &str) -> Result<Product, Fault> {
        if let Some(product) = self.products.get(name) {
            return Ok(product.clone());
        }
        let product: Product = read("product", name)?;
        if self.products.len() < MAX_SHARED {
            self.products.insert(name.to_owned(), product.clone());
        }
        Ok(product)
    }

    fn version(&mut self, scheme: VersionScheme, text: String) -> ReportedVersion {
        let key = (scheme, text);
        if let Some(version) = self.versions.get(&key) {
            return version.clone();
        }
        let version = ReportedVersion::read(&key.1, scheme);
        if self.versions.len() < MAX_SHARED {
            self.versions.insert(key, version.clone());
        }
        version
    }

    /// A list of blocks.
    pub(crate) fn block_list(&mut self, list: wire::BlockList) -> Result<BlockList, RouteError> {
        let wire::BlockList { number, product, blocks } = list;
        let mut understand = || {
            let product = self.product(&product)?;
            at_most("blocks", blocks.len(), MAX_BLOCKS_PER_ROUTE)?;
            let mut not_understood = Vec::new();
            let read = blocks.iter().map(|each| block(each, product.scheme(), &mut not_understood));
            let blocks = read.collect::<Result<_, Fault>>()?;
            Ok(BlockList { product: product.clone(), blocks, not_understood: not_understood.into() })
        };
        let fault = |(field, problem)| RouteError { id: format!("(block list {number})"), field, problem };
        understand().map_err(fault)
    }

    /// A route.
    pub(crate) fn route(
        &mut self,
        route: wire::Route,
        lists: &HashMap<u32, BlockList>,
    ) -> Result<Route, RouteError> {
        let id = route.id.clone();
        self.understand(route, lists).map_err(|(field, problem)| RouteError { id, field, problem })
    }

    fn understand(&mut self, route: wire::Route, lists: &HashMap<u32, BlockList>) -> Result<Route, Fault> {
        let unknown_version = wire::UnknownVersion::try_from(route.unknown_version);
        let wire::Route {
            id,
            generation,
            hostnames,
            enabled,
            product,
            declared_version,
            unknown_version: _,
            block_list,
            accepted_blocks,
            allow_networks,
            deny_networks,
            max_connections,
            new_connections_per_minute_per_client,
            tunnels,
            agent_keys,
            park_visitors,
            priority,
            must_understand,
        } = route;
        let mut not_understood: Vec<String> =
            must_understand.into_iter().filter(|name| !UNDERSTOOD.contains(&name.as_str())).collect();
        let unknown_version = match unknown_version {
            Ok(wire::UnknownVersion::Allow) => UnknownVersion::Allow,
            Ok(wire::UnknownVersion::Block) => UnknownVersion::Block,
            Ok(wire::UnknownVersion::Unspecified) | Err(_) => {
                not_understood.push("unknownVersion".to_owned());
                UnknownVersion::Block
            }
        };
        let product = self.product(&product)?;
        let blocks = if block_list == 0 {
            Arc::default()
        } else {
            let known = lists.get(&block_list).filter(|list| list.product == product);
            let list = known.ok_or_else(|| {
                ("blockList".to_owned(), format!("{block_list} is no list of blocks for {product}"))
            })?;
            not_understood.extend_from_slice(&list.not_understood);
            Arc::clone(&list.blocks)
        };
        at_most("acceptedBlocks", accepted_blocks.len(), MAX_ACCEPTED_PER_ROUTE)?;
        at_most("agentKeys", agent_keys.len(), MAX_AGENT_KEYS_PER_ROUTE)?;
        let terms = RouteTerms {
            id: read("id", &id)?,
            generation,
            hostnames: read_list("hostnames", &hostnames, MAX_HOST_NAMES_PER_ROUTE)?,
            enabled,
            declared_version: if declared_version.is_empty() {
                ReportedVersion::Unknown
            } else {
                self.version(product.scheme(), declared_version)
            },
            product,
            unknown_version,
            accepted_blocks,
            allow_networks: read_list("allowNetworks", &allow_networks, MAX_NETWORKS_PER_LIST)?,
            deny_networks: read_list("denyNetworks", &deny_networks, MAX_NETWORKS_PER_LIST)?,
            limits: Limits {
                max_connections: within("maxConnections", max_connections, u32::MAX)?,
                new_connections_per_minute_per_client: within(
                    "newConnectionsPerMinutePerClient",
                    new_connections_per_minute_per_client,
                    u32::MAX,
                )?,
            },
            tunnels: within("tunnels", tunnels, MAX_TUNNELS)?,
            agent_keys: agent_keys.iter().enumerate().map(agent_key).collect::<Result<_, Fault>>()?,
            park_visitors,
            priority,
            not_understood,
        };
        Ok(terms.route(blocks))
    }
}

fn block(
    block: &wire::VersionBlock,
    scheme: VersionScheme,
    not_understood: &mut Vec<String>,
) -> Result<VersionBlock, Fault> {
    let action = wire::BlockAction::try_from(block.action);
    let wire::VersionBlock { name, versions, reason, more_info, action: _ } = block;
    let field = |member: &str| format!("blocks[{}].{member}", shortened(name));
    if name.is_empty() || name.len() > MAX_BLOCK_NAME_LENGTH {
        return Err((field("name"), format!("is empty or longer than {MAX_BLOCK_NAME_LENGTH} bytes")));
    }
    at_most(&field("versions"), versions.len(), MAX_RANGES_PER_BLOCK)?;
    if versions.is_empty() {
        return Err((field("versions"), "is empty".to_owned()));
    }
    for (member, text) in [("reason", Some(reason)), ("moreInfo", more_info.as_ref())] {
        if text.is_some_and(|text| text.len() > MAX_BLOCK_TEXT_LENGTH) {
            return Err((field(member), format!("is longer than {MAX_BLOCK_TEXT_LENGTH} bytes")));
        }
    }
    let action = match action {
        Ok(wire::BlockAction::Block) => BlockAction::Block,
        Ok(wire::BlockAction::Warn) => BlockAction::Warn,
        Ok(wire::BlockAction::Unspecified) | Err(_) => {
            not_understood.push(field("action"));
            BlockAction::Block
        }
    };
    let range = |text: &String| {
        VersionRange::parse(text, scheme).map_err(|error| (field("versions"), error.to_string()))
    };
    Ok(VersionBlock {
        name: name.as_str().into(),
        ranges: versions.iter().map(range).collect::<Result<_, _>>()?,
        reason: reason.clone(),
        more_info: more_info.clone(),
        action,
    })
}

fn agent_key((at, key): (usize, &wire::AgentKey)) -> Result<AgentKey, Fault> {
    let digest = <[u8; 32]>::try_from(key.fingerprint_sha256.as_slice())
        .map_err(|_| (format!("agentKeys[{at}]"), "is no SHA-256 of 32 bytes".to_owned()))?;
    Ok(AgentKey { fingerprint: Fingerprint::from_bytes(digest), generation: key.generation })
}

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

fn at_most(field: &str, found: usize, most: usize) -> Result<(), Fault> {
    if found > most {
        return Err((field.to_owned(), format!("has {found} entries; the most is {most}")));
    }
    Ok(())
}

fn within(field: &str, found: u32, most: u32) -> Result<u32, Fault> {
    if (1..=most).contains(&found) {
        return Ok(found);
    }
    Err((field.to_owned(), format!("is {found}; it can be 1 to {most}")))
}

/// A text for a message, not too long.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
