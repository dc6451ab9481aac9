//! Routes as messages.

use policy::{BlockAction, UnknownVersion, VersionBlock};
use route_table::{AgentKey, Limits, Route, RouteTerms};

use crate::wire;

/// A route whose block list has this number.
pub(crate) fn route(route: &Route, block_list: u32) -> wire::Route {
    // Without `..`: a member that is not sent would be a restriction that proxies do not have.
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
        limits: Limits { max_connections, new_connections_per_minute_per_client },
        tunnels,
        agent_keys,
        park_visitors,
        priority,
        not_understood,
    } = &**route;
    wire::Route {
        id: id.to_string(),
        generation: *generation,
        hostnames: hostnames.iter().map(ToString::to_string).collect(),
        enabled: *enabled,
        product: product.as_str().to_owned(),
        declared_version: declared_version.text().unwrap_or_default().to_owned(),
        unknown_version: match unknown_version {
            UnknownVersion::Allow => wire::UnknownVersion::Allow.into(),
            UnknownVersion::Block => wire::UnknownVersion::Block.into(),
        },
        block_list,
        accepted_blocks: accepted_blocks.clone(),
        allow_networks: allow_networks.iter().map(ToString::to_string).collect(),
        deny_networks: deny_networks.iter().map(ToString::to_string).collect(),
        max_connections: *max_connections,
        new_connections_per_minute_per_client: *new_connections_per_minute_per_client,
        tunnels: *tunnels,
        agent_keys: agent_keys.iter().map(agent_key).collect(),
        park_visitors: *park_visitors,
        priority: *priority,
        must_understand: not_understood.clone(),
    }
}

fn agent_key(AgentKey { fingerprint, generation }: &AgentKey) -> wire::AgentKey {
    wire::AgentKey { fingerprint_sha256: fingerprint.as_bytes().to_vec(), generation: *generation }
}

/// A list of blocks.
pub(crate) fn block_list(number: u32, product: &str, blocks: &[VersionBlock]) -> wire::BlockList {
    let block = |block: &VersionBlock| {
        let VersionBlock { name, ranges, reason, more_info, action } = block;
        wire::VersionBlock {
            name: name.to_string(),
            versions: ranges.iter().map(|range| range.as_str().to_owned()).collect(),
            reason: reason.clone(),
            more_info: more_info.clone(),
            action: match action {
                BlockAction::Block => wire::BlockAction::Block.into(),
                BlockAction::Warn => wire::BlockAction::Warn.into(),
            },
        }
    };
    wire::BlockList { number, product: product.to_owned(), blocks: blocks.iter().map(block).collect() }
}
