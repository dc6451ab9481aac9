//! The route of an instance: what proxies get to know of it.

use std::sync::Arc;

use policy::{UnknownVersion, VersionBlock};
use resources::remote_instance::{Access, RemoteInstanceSpec};
use route_table::{AgentKey, Fingerprint, Limits, Route, RouteTerms};

use crate::outcome::Outcome;
use crate::wish::Wish;

/// Generation of the keys that agents have. Keys are taken away one by one, so it stays what it is.
const KEY_GENERATION: u64 = 1;

/// Makes the route; `None` for an instance that never made sense.
///
/// A disabled or blocked instance has a route, too: proxies must tell its visitors and its agent why they are refused.
/// Whether it is served is `enabled` and [`Route::admit`], which the proxy asks about the version it was told last.
pub(crate) fn route(
    wish: &Wish,
    outcome: &Outcome,
    blocks: &Arc<[VersionBlock]>,
    declared: &policy::ReportedVersion,
    accepted: Vec<String>,
    unknown_version: UnknownVersion,
) -> Option<Route> {
    // Without `..`, so that a new member of the spec is decided about here.
    let RemoteInstanceSpec {
        installation: _,
        enabled: _,
        hostname: _,
        custom_domains: _,
        product,
        version: _,
        accepted_blocks: _,
        agent_keys: _,
        tunnels,
        acknowledged_certificates: _,
        access:
            Access { allow_networks, deny_networks, max_connections, new_connections_per_minute_per_client },
    } = wish.spec()?;
    let positive = |number: i32| u32::try_from(number).unwrap_or_default().max(1);
    let foreign = |key: &Fingerprint| outcome.foreign_keys.iter().any(|(foreign, _)| foreign == key);
    let own_keys = wish.keys.iter().filter(|key| !foreign(key));
    let mut hostnames = Vec::with_capacity(1 + outcome.domains.len() + usize::from(outcome.label.is_some()));
    let mut served = outcome.served().peekable();
    if let Some(label) = wish.claimed_label().and_then(|label| served.next_if_eq(&label)) {
        hostnames.push(label.clone());
    }
    hostnames.push(wish.random.clone());
    hostnames.extend(served.cloned());
    let terms = RouteTerms {
        id: wish.id.clone(),
        generation: KEY_GENERATION,
        hostnames,
        enabled: wish.enabled,
        product: product.clone(),
        declared_version: declared.clone(),
        unknown_version,
        accepted_blocks: accepted,
        allow_networks: allow_networks.clone(),
        deny_networks: deny_networks.clone(),
        limits: Limits {
            max_connections: positive(*max_connections),
            new_connections_per_minute_per_client: positive(*new_connections_per_minute_per_client),
        },
        tunnels: positive(*tunnels),
        agent_keys: own_keys.map(|key| AgentKey { fingerprint: *key, generation: KEY_GENERATION }).collect(),
        park_visitors: true,
        priority: 0,
        not_understood: Vec::new(),
    };
    Some(terms.route(Arc::clone(blocks)))
}
