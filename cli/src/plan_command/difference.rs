//! What differs between two plans, instance by instance.

use std::collections::BTreeSet;

use planner::Plan;
use policy::{BlockedBy, ReportedVersion};
use resources::RemoteInstanceStatus;
use resources::condition::{Condition, Truth};
use resources::remote_instance::HostnameState;
use route_table::{InstanceId, Limits, Route, RouteTerms};
use serde::Serialize;

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

/// May an instance be reached?
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Access {
    /// There is no such instance, or it is not this installation's.
    Absent,
    /// Remote access is off.
    Disabled,
    /// A version block, or an unknown version, keeps it out.
    Blocked,
    /// Yes.
    Open,
}

/// A member of a route that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MemberChange {
    pub(crate) member: &'static str,
    pub(crate) before: String,
    pub(crate) after: String,
}

/// Why somebody would be cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reason {
    /// One word for programs.
    #[serde(rename = "reason")]
    pub(crate) word: &'static str,
    /// A sentence for people.
    pub(crate) message: String,
    /// The version block, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block: Option<String>,
    /// A link with more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) more_info: Option<String>,
}

/// What would change for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InstanceChange {
    pub(crate) instance: String,
    pub(crate) change: Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    pub(crate) access_before: Access,
    pub(crate) access: Access,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) members: Vec<MemberChange>,
    /// Why it cannot be reached afterwards, where it cannot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) refused: Vec<Reason>,
    /// Who is connected now would be cut off, for these reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) disconnects: Vec<Reason>,
    /// Names that it asks for and does not get.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) conflicts: Vec<String>,
}

/// One side of a comparison.
#[derive(Clone, Copy, Default)]
struct Side<'a> {
    route: Option<&'a Route>,
    status: Option<&'a RemoteInstanceStatus>,
}

impl<'a> Side<'a> {
    fn of(plan: Option<&'a Plan>, id: &InstanceId) -> Self {
        Self {
            route: plan.and_then(|plan| plan.routes.get(id)),
            status: plan.and_then(|plan| plan.instances.get(id)).map(|status| &**status),
        }
    }

    fn access(self) -> Access {
        match self.route {
            None => Access::Absent,
            Some(route) if !route.enabled => Access::Disabled,
            Some(_) if self.version_message().is_some() => Access::Blocked,
            Some(_) => Access::Open,
        }
    }

    /// What is said of a version that keeps an instance out.
    fn version_message(self) -> Option<&'a str> {
        let conditions = &self.status?.conditions;
        let version = conditions.iter().find(|each| each.kind == "VersionAllowed")?;
        (version.status == Truth::False).then_some(&*version.message)
    }

    /// What only one can have, and another one has.
    fn conflicts(self) -> BTreeSet<String> {
        let Some(status) = self.status else { return BTreeSet::new() };
        let lost = status.hostnames.iter().filter(|each| each.state == HostnameState::Conflict);
        let names = lost.map(|each| format!("{}: {}", each.name, each.message));
        let of_keys = |each: &&Condition| each.kind == "Ready" && KEY_REASONS.contains(&&*each.reason);
        let keys = status.conditions.iter().filter(of_keys).map(|each| each.message.to_string());
        names.chain(keys).collect()
    }
}

/// Reasons of `Ready` that are about keys of agents.
const KEY_REASONS: [&str; 2] = ["AgentKeyConflict", "InvalidAgentKey"];

/// What would change for every instance.
pub(crate) fn instances(before: Option<&Plan>, after: &Plan) -> Vec<InstanceChange> {
    let known = before.into_iter().flat_map(|plan| plan.instances.keys());
    let ids: BTreeSet<&InstanceId> = known.chain(after.instances.keys()).collect();
    ids.into_iter().filter_map(|id| instance(id, Side::of(before, id), Side::of(Some(after), id))).collect()
}

fn instance(id: &InstanceId, before: Side<'_>, after: Side<'_>) -> Option<InstanceChange> {
    let change = match (before.status, after.status) {
        (None, Some(_)) => Change::Added,
        (Some(_), None) => Change::Removed,
        _ => Change::Changed,
    };
    let members = match (before.route, after.route) {
        (Some(before), Some(after)) => members(before, after),
        _ => Vec::new(),
    };
    let conflicts: Vec<String> = after.conflicts().difference(&before.conflicts()).cloned().collect();
    let (access_before, access) = (before.access(), after.access());
    let refused = if access == Access::Open { Vec::new() } else { refused(after, &access) };
    let same_refusal = access_before == access && blocks_of(before) == blocks_of(after);
    if change == Change::Changed && members.is_empty() && conflicts.is_empty() && same_refusal {
        return None;
    }
    let disconnects = match (&access_before, &access) {
        (Access::Open, Access::Open) => cut_off(before, after),
        (Access::Open, _) => refused.clone(),
        _ => Vec::new(),
    };
    let url = after.status.filter(|_| access == Access::Open).and_then(|status| status.url.clone());
    Some(InstanceChange {
        instance: id.to_string(),
        change,
        url,
        access_before,
        access,
        members,
        refused,
        disconnects,
        conflicts,
    })
}

fn blocks_of(side: Side<'_>) -> &[String] {
    side.status.map(|status| status.blocked_by.as_slice()).unwrap_or_default()
}

/// Why an instance cannot be reached.
fn refused(side: Side<'_>, access: &Access) -> Vec<Reason> {
    let plain = |word, message: &str| {
        vec![Reason { word, message: message.to_owned(), block: None, more_info: None }]
    };
    match access {
        Access::Open => Vec::new(),
        Access::Absent => plain("RouteRemoved", "its route is removed"),
        Access::Disabled => plain("Disabled", "remote access is switched off"),
        Access::Blocked => {
            let blocked_by: Vec<Reason> =
                blocks_of(side).iter().filter_map(|name| block(side.route?, name)).map(blocked).collect();
            if blocked_by.is_empty() {
                plain("UnknownVersion", side.version_message().unwrap_or("its version cannot be told"))
            } else {
                blocked_by
            }
        }
    }
}

fn block(route: &Route, name: &str) -> Option<BlockedBy> {
    let block = route.blocks.iter().find(|block| &*block.name == name)?;
    let (reason, more_info) = (block.reason.clone(), block.more_info.clone());
    Some(BlockedBy { name: name.to_owned(), reason, more_info })
}

fn blocked(by: BlockedBy) -> Reason {
    Reason { word: "Blocked", message: by.reason, block: Some(by.name), more_info: by.more_info }
}

/// Who is cut off though the instance can still be reached: visitors of a name that is gone, agents whose key is gone.
fn cut_off(before: Side<'_>, after: Side<'_>) -> Vec<Reason> {
    let (Some(before), Some(after)) = (before.route, after.route) else { return Vec::new() };
    let mut reasons = Vec::new();
    let mut tell = |word, message: String| {
        reasons.push(Reason { word, message, block: None, more_info: None });
    };
    for name in before.hostnames.iter().filter(|name| !after.hostnames.contains(name)) {
        tell("HostnameGone", format!("{name} leads here no more"));
    }
    let kept = |key| after.agent_keys.iter().any(|known| known.fingerprint == key);
    for key in before.agent_keys.iter().map(|key| key.fingerprint).filter(|key| !kept(*key)) {
        let text = key.to_string();
        let short = text.get(..16).unwrap_or(&text);
        tell("KeyRemoved", format!("agents with the key {short}... are not known any more"));
    }
    if after.tunnels < before.tunnels {
        let message = format!("at most {} of its {} tunnels stay", after.tunnels, before.tunnels);
        tell("FewerTunnels", message);
    }
    reasons
}

/// What a route says, member by member.
fn members(before: &Route, after: &Route) -> Vec<MemberChange> {
    let pairs = shown(before).into_iter().zip(shown(after));
    pairs
        .filter(|((_, before), (_, after))| before != after)
        .map(|((member, before), (_, after))| MemberChange { member, before, after })
        .collect()
}

/// Blocks have a chapter of their own: what they do to an instance is its access.
fn shown(terms: &RouteTerms) -> Vec<(&'static str, String)> {
    // Without `..`, so that a new member is compared, too.
    let RouteTerms {
        id: _,
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
    } = terms;
    let version = match declared_version {
        ReportedVersion::Known(version) => version.to_string(),
        ReportedVersion::Unreadable(text) => format!("{text:?}"),
        ReportedVersion::Unknown => "none".to_owned(),
    };
    let keys: Vec<String> = agent_keys.iter().map(|key| key.fingerprint.to_string()).collect();
    vec![
        ("hostnames", list(hostnames)),
        ("enabled", enabled.to_string()),
        ("product", product.to_string()),
        ("version", version),
        ("unknownVersion", format!("{unknown_version:?}")),
        ("acceptedBlocks", list(accepted_blocks)),
        (
            "access.allowNetworks",
            if allow_networks.is_empty() { "everyone".to_owned() } else { list(allow_networks) },
        ),
        ("access.denyNetworks", list(deny_networks)),
        ("access.maxConnections", max_connections.to_string()),
        ("access.newConnectionsPerMinutePerClient", new_connections_per_minute_per_client.to_string()),
        ("tunnels", tunnels.to_string()),
        ("agentKeys", list(&keys)),
        ("keyGeneration", generation.to_string()),
        ("parkVisitors", park_visitors.to_string()),
        ("priority", priority.to_string()),
        ("notUnderstood", list(not_understood)),
    ]
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
