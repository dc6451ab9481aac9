//! What the API server checks by the schema, for objects that did not pass one: those in a folder, and those whose
//! schema was another at the time. What the types themselves refuse is not repeated here.

use std::collections::BTreeSet;
use std::fmt::Display;

use policy::{MAX_RANGE_LENGTH, MAX_VERSION_LENGTH};
use route_table::{
    MAX_AGENT_KEYS_PER_ROUTE, MAX_BLOCK_NAME_LENGTH, MAX_BLOCK_TEXT_LENGTH, MAX_NETWORKS_PER_LIST,
    MAX_RANGES_PER_BLOCK, MAX_TUNNELS,
};

use crate::installation::InstallationSpec;
use crate::remote_instance::{Access, RemoteInstanceSpec};
use crate::version_block::VersionBlockSpec;

/// Most custom domains of an instance.
pub const MAX_CUSTOM_DOMAINS: usize = 16;
/// Most accepted blocks of an instance.
pub const MAX_ACCEPTED_BLOCKS: usize = 256;
/// Longest label of a DNS name.
pub const MAX_LABEL_LENGTH: usize = 63;
/// Longest note beside an accepted block.
pub const MAX_NOTE_LENGTH: usize = 1024;
/// Largest number a limit of `spec.access` may be.
pub const MAX_RATE: i32 = 100_000;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which member, e.g. `spec.customDomains[2]`.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A spec that can tell whether it obeys its own rules.
pub trait Checked {
    /// The first rule that it breaks.
    fn check(&self) -> Result<(), Problem>;
}

impl Checked for RemoteInstanceSpec {
    fn check(&self) -> Result<(), Problem> {
        // A new member must be looked at here: without `..` the build says so.
        let Self {
            installation,
            enabled: _,
            hostname,
            custom_domains,
            product: _,
            version,
            accepted_blocks,
            agent_keys,
            tunnels,
            acknowledged_certificates,
            access,
        } = self;
        if !installation.is_empty() {
            label("spec.installation", installation)?;
        }
        if let Some(hostname) = hostname {
            label("spec.hostname", hostname)?;
        }
        list("spec.customDomains", custom_domains, MAX_CUSTOM_DOMAINS)?;
        for (at, domain) in custom_domains.iter().enumerate() {
            let whole = domain.as_str().contains('.');
            ensure(
                whole,
                || format!("spec.customDomains[{at}]"),
                "must be a whole domain name, such as home.example.com",
            )?;
        }
        if let Some(version) = version {
            text("spec.version", version, 1, MAX_VERSION_LENGTH)?;
        }
        list(
            "spec.acceptedBlocks",
            accepted_blocks.iter().map(|accepted| &accepted.name),
            MAX_ACCEPTED_BLOCKS,
        )?;
        for (at, accepted) in accepted_blocks.iter().enumerate() {
            let path = format!("spec.acceptedBlocks[{at}]");
            ensure(
                is_object_name(&accepted.name),
                || format!("{path}.name"),
                "must be the name of a VersionBlock",
            )?;
            text(&format!("{path}.reason"), &accepted.reason, 0, MAX_NOTE_LENGTH)?;
            text(&format!("{path}.by"), &accepted.by, 0, MAX_BLOCK_NAME_LENGTH)?;
        }
        list("spec.agentKeys", agent_keys, MAX_AGENT_KEYS_PER_ROUTE)?;
        number("spec.tunnels", *tunnels, i32::try_from(MAX_TUNNELS).unwrap_or(i32::MAX))?;
        list("spec.acknowledgedCertificates", acknowledged_certificates, MAX_AGENT_KEYS_PER_ROUTE)?;
        access.check()
    }
}

impl Access {
    fn check(&self) -> Result<(), Problem> {
        let Self { allow_networks, deny_networks, max_connections, new_connections_per_minute_per_client } =
            self;
        list("spec.access.allowNetworks", allow_networks, MAX_NETWORKS_PER_LIST)?;
        list("spec.access.denyNetworks", deny_networks, MAX_NETWORKS_PER_LIST)?;
        number("spec.access.maxConnections", *max_connections, MAX_RATE)?;
        number(
            "spec.access.newConnectionsPerMinutePerClient",
            *new_connections_per_minute_per_client,
            MAX_RATE,
        )
    }
}

impl Checked for VersionBlockSpec {
    fn check(&self) -> Result<(), Problem> {
        let Self { product: _, versions, reason, more_info, action: _ } = self;
        ensure(!versions.is_empty(), || "spec.versions".to_owned(), "must name at least one range")?;
        list("spec.versions", versions, MAX_RANGES_PER_BLOCK)?;
        for (at, range) in versions.iter().enumerate() {
            text(&format!("spec.versions[{at}]"), range, 1, MAX_RANGE_LENGTH)?;
        }
        text("spec.reason", reason, 1, MAX_BLOCK_TEXT_LENGTH)?;
        if let Some(link) = more_info {
            text("spec.moreInfo", link, 1, MAX_BLOCK_TEXT_LENGTH)?;
            let host = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://"));
            let is_link = host.is_some_and(|host| !host.is_empty() && !host.contains(' '));
            ensure(
                is_link,
                || "spec.moreInfo".to_owned(),
                "must be a link that begins with https:// or http://",
            )?;
        }
        Ok(())
    }
}

impl Checked for InstallationSpec {
    fn check(&self) -> Result<(), Problem> {
        let Self {
            domain: _,
            default: _,
            namespaces,
            unknown_version: _,
            reserved_labels,
            quarantine_days: _,
            public_port,
            tunnel_address,
        } = self;
        for (at, name) in namespaces.iter().enumerate() {
            let holds = is_label(name);
            ensure(holds, || format!("spec.namespaces[{at}]"), "is no name of a namespace")?;
        }
        for (at, name) in reserved_labels.iter().enumerate() {
            let holds = is_label(name);
            ensure(
                holds,
                || format!("spec.reservedLabels[{at}]"),
                "is no label: write lower-case letters, digits and '-'",
            )?;
        }
        ensure(*public_port > 0, || "spec.publicPort".to_owned(), "is 0; a port is 1 to 65535")?;
        let address_holds = tunnel_address.as_ref().is_none_or(|address| is_host_and_port(address));
        ensure(
            address_holds,
            || "spec.tunnelAddress".to_owned(),
            "is not HOST:PORT, e.g. connect.example.com:443",
        )
    }
}

fn ensure(holds: bool, path: impl FnOnce() -> String, problem: impl Display) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem { path: path(), problem: problem.to_string() }) }
}

fn label(path: &str, text: &str) -> Result<(), Problem> {
    let holds = is_label(text);
    ensure(
        holds,
        || path.to_owned(),
        format_args!(
            "{text:.80?} must be one label: at most {MAX_LABEL_LENGTH} lower-case letters, digits and hyphens inside, no dots"
        ),
    )
}

/// A label of a DNS name, which the names of namespaces are, too.
pub fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL_LENGTH && is_spelt_like_a_label(text)
}

/// Lower-case letters and digits, hyphens only inside.
fn is_spelt_like_a_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_good = match inside {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    host_is_good && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The name of an object. A part of it may be longer than a label of DNS.
pub fn is_object_name(text: &str) -> bool {
    text.len() <= MAX_BLOCK_NAME_LENGTH && text.split('.').all(is_spelt_like_a_label)
}

fn text(path: &str, text: &str, least: usize, most: usize) -> Result<(), Problem> {
    let length = text.chars().count();
    ensure(
        (least..=most).contains(&length),
        || path.to_owned(),
        format_args!("must have {least} to {most} characters, not {length}"),
    )
}

fn number(path: &str, number: i32, most: i32) -> Result<(), Problem> {
    ensure(
        (1..=most).contains(&number),
        || path.to_owned(),
        format_args!("must be from 1 to {most}, not {number}"),
    )
}

/// A list of bounded length in which nothing stands twice.
fn list<T: Ord + Display>(
    path: &str,
    items: impl IntoIterator<Item = T>,
    most: usize,
) -> Result<(), Problem> {
    let mut seen = BTreeSet::new();
    for (at, item) in items.into_iter().enumerate() {
        ensure(at < most, || path.to_owned(), format_args!("must have at most {most} entries"))?;
        let shown = item.to_string();
        ensure(
            seen.insert(item),
            || format!("{path}[{at}]"),
            format_args!("{shown:.80?} stands here twice"),
        )?;
    }
    Ok(())
}
