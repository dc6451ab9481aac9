//! What a proxy knows of one instance.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use policy::{Admission, Product, ReportedVersion, UnknownVersion, VersionBlock};

use crate::agent_key::AgentKey;
use crate::host_name::HostName;
use crate::network::Cidr;

/// Longest part of an [`InstanceId`] on either side of the slash.
pub const MAX_ID_PART_LENGTH: usize = 253;

/// Which instance: `namespace/name`. Cloning shares the text; a `&str` finds it in a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Arc<str>);

/// Why a text is no instance id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an instance: write \"namespace/name\" in lower-case letters, digits, '-' and '.'")]
pub struct InstanceIdError {
    text: String,
}

impl InstanceId {
    /// `namespace/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = InstanceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let part =
            |part: &str| !part.is_empty() && part.len() <= MAX_ID_PART_LENGTH && part.bytes().all(allowed);
        match text.split_once('/') {
            Some((namespace, name)) if part(namespace) && part(name) => Ok(Self(text.into())),
            _ => Err(InstanceIdError { text: text.chars().take(MAX_ID_PART_LENGTH).collect() }),
        }
    }
}

impl Borrow<str> for InstanceId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How much visitors may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Visitor connections at once.
    pub max_connections: u32,
    /// New visitor connections a minute from one client address.
    pub new_connections_per_minute_per_client: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 512, new_connections_per_minute_per_client: 120 }
    }
}

/// What a proxy knows of one instance. A copy shares all of it, and so does one with another list of blocks: a new block
/// gives every route of a fleet another list at once.
#[derive(Clone, Debug, Eq)]
pub struct Route {
    terms: Arc<RouteTerms>,
    /// Findings about its product. Routes with equal lists share one.
    pub blocks: Arc<[VersionBlock]>,
}

/// What a route says of its own instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTerms {
    /// Which instance.
    pub id: InstanceId,
    /// Generation of its keys: a token made for another one is refused.
    pub generation: u64,
    /// Names that lead to it.
    pub hostnames: Vec<HostName>,
    /// Is remote access on?
    pub enabled: bool,
    /// What it runs; decides how versions compare.
    pub product: Product,
    /// Its version as declared, used while nothing is reported.
    pub declared_version: ReportedVersion,
    /// What a version that cannot be told means.
    pub unknown_version: UnknownVersion,
    /// Names of blocks accepted at the owner's risk.
    pub accepted_blocks: Vec<String>,
    /// Where visitors may come from; empty means from everywhere.
    pub allow_networks: Vec<Cidr>,
    /// Where visitors may not come from, whatever is allowed.
    pub deny_networks: Vec<Cidr>,
    /// How much visitors may take.
    pub limits: Limits,
    /// Live tunnels allowed at once.
    pub tunnels: u32,
    /// Keys its agents prove.
    pub agent_keys: Vec<AgentKey>,
    /// May visitors wait for a tunnel that was there a moment ago?
    pub park_visitors: bool,
    /// Who goes first when there is not enough for all; higher first.
    pub priority: i32,
    /// What the route says that this build does not know, e.g. `limits.maxBandwidth`. It could be a restriction,
    /// so the instance is known but refused.
    pub not_understood: Vec<String>,
}

/// Lists of blocks are long and mostly shared, so the same list is not compared entry by entry.
impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.blocks, &other.blocks) || self.blocks == other.blocks)
            && self.differs_in_blocks_alone(other)
    }
}

impl Deref for Route {
    type Target = RouteTerms;

    fn deref(&self) -> &RouteTerms {
        &self.terms
    }
}

impl Route {
    /// Is it the very same, not one that says the same?
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.terms, &other.terms) && Arc::ptr_eq(&self.blocks, &other.blocks)
    }

    /// Does it say the same, its blocks aside?
    pub fn differs_in_blocks_alone(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.terms, &other.terms) || self.terms == other.terms
    }

    /// The same with another list of blocks.
    #[must_use]
    pub fn with_blocks(&self, blocks: &Arc<[VersionBlock]>) -> Self {
        Self { terms: Arc::clone(&self.terms), blocks: Arc::clone(blocks) }
    }

    /// The same with other terms. Whoever shares them keeps theirs.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut RouteTerms)) -> Self {
        change(Arc::make_mut(&mut self.terms));
        self
    }
}

impl RouteTerms {
    /// The route of these terms, with these blocks.
    pub fn route(self, blocks: Arc<[VersionBlock]>) -> Route {
        Route { terms: Arc::new(self), blocks }
    }
}

/// Why a route is known but serves nobody, whatever the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteRefusal<'a> {
    /// Remote access is off.
    Disabled,
    /// It says what this build does not know: these fields.
    NotUnderstood(&'a [String]),
}

impl fmt::Display for RouteRefusal<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => formatter.write_str("remote access is disabled"),
            Self::NotUnderstood(fields) => {
                write!(formatter, "the route says what this version does not know: {}", fields.join(", "))
            }
        }
    }
}

impl Route {
    /// A route with every default, serving nothing until it has host names.
    pub fn new(id: InstanceId) -> Self {
        let terms = RouteTerms {
            id,
            generation: 1,
            hostnames: Vec::new(),
            enabled: true,
            product: Product::default(),
            declared_version: ReportedVersion::Unknown,
            unknown_version: UnknownVersion::Allow,
            accepted_blocks: Vec::new(),
            allow_networks: Vec::new(),
            deny_networks: Vec::new(),
            limits: Limits::default(),
            tunnels: 1,
            agent_keys: Vec::new(),
            park_visitors: true,
            priority: 0,
            not_understood: Vec::new(),
        };
        terms.route(Arc::default())
    }

    /// May a visitor come from this address? Denied networks win over allowed ones.
    pub fn admits_network(&self, address: IpAddr) -> bool {
        let among = |networks: &[Cidr]| networks.iter().any(|network| network.contains(address));
        !among(&self.deny_networks) && (self.allow_networks.is_empty() || among(&self.allow_networks))
    }

    /// May an instance of this version be reached? What was reported wins over what is declared, even when it
    /// cannot be read. [`Route::refusal`] is a separate question and comes first.
    pub fn admit(&self, reported: Option<&ReportedVersion>) -> Admission {
        let version = match reported {
            Some(known @ (ReportedVersion::Known(_) | ReportedVersion::Unreadable(_))) => known,
            Some(ReportedVersion::Unknown) | None => &self.declared_version,
        };
        policy::admit(version, &self.blocks, &self.accepted_blocks, self.unknown_version)
    }

    /// Why it serves nobody, if so.
    pub fn refusal(&self) -> Option<RouteRefusal<'_>> {
        if !self.enabled {
            Some(RouteRefusal::Disabled)
        } else if !self.not_understood.is_empty() {
            Some(RouteRefusal::NotUnderstood(&self.not_understood))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::{BlockAction, VersionRange, VersionScheme};

    use super::*;

    fn route() -> Route {
        Route::new("homes/lake-house".parse().unwrap())
    }

    fn networks(list: &[&str]) -> Vec<Cidr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn ids_are_namespace_and_name() {
        assert_eq!("homes/lake-house".parse::<InstanceId>().unwrap().as_str(), "homes/lake-house");
        for text in
            ["", "homes", "/x", "x/", "a/b/c", "Homes/x", "homes/x y", &format!("a/{}", "b".repeat(254))]
        {
            assert!(text.parse::<InstanceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_very_same_is_more_than_one_that_says_the_same() {
        let (one, twin) = (route(), route());
        assert!(one == twin && !one.is_same(&twin) && one.is_same(&one.clone()));
        let relisted = one.with_blocks(&blocking_old("").blocks);
        assert!(relisted.differs_in_blocks_alone(&one) && !relisted.is_same(&one) && relisted != one);
        let off = one.clone().with(|terms| terms.enabled = false);
        assert!(one.enabled && !off.enabled && !off.differs_in_blocks_alone(&one) && off != one);
    }

    #[test]
    fn deny_wins_over_allow_and_no_allow_means_everybody() {
        // (allow, deny, address, admitted)
        for (allow, deny, address, admitted) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["192.0.2.0/24"], &[], "192.0.2.1", true),
            (&["192.0.2.0/24"], &[], "198.51.100.1", false),
            (&["192.0.2.0/24"], &[], "2001:db8::1", false),
            (&[], &["192.0.2.0/24"], "192.0.2.1", false),
            (&[], &["192.0.2.0/24"], "::ffff:192.0.2.1", false),
            (&[], &["192.0.2.0/24"], "198.51.100.1", true),
            (&["192.0.2.0/24"], &["192.0.2.1"], "192.0.2.1", false),
            (&["192.0.2.0/24"], &["192.0.2.1"], "192.0.2.2", true),
        ] {
            let route = route().with(|terms| {
                (terms.allow_networks, terms.deny_networks) = (networks(allow), networks(deny));
            });
            let found = route.admits_network(address.parse().unwrap());
            assert_eq!(found, admitted, "{allow:?} {deny:?} {address}");
        }
    }

    fn blocking_old(declared: &str) -> Route {
        let scheme = VersionScheme::Calendar;
        let block = VersionBlock {
            name: "old".into(),
            ranges: vec![VersionRange::parse("<=2021.1.4", scheme).unwrap()],
            reason: "old".to_owned(),
            more_info: None,
            action: BlockAction::Block,
        };
        let route = route().with(|terms| {
            terms.declared_version = ReportedVersion::read(declared, scheme);
            terms.unknown_version = UnknownVersion::Block;
        });
        route.with_blocks(&[block].into())
    }

    #[test]
    fn what_is_reported_wins_over_what_is_declared() {
        let read = |text: &str| ReportedVersion::read(text, VersionScheme::Calendar);
        // (declared, reported, admitted)
        for (declared, reported, admitted) in [
            ("2026.1.0", None, true),
            ("2020.1.0", None, false),
            ("2026.1.0", Some("2020.1.0"), false),
            ("2020.1.0", Some("2026.1.0"), true),
            ("2026.1.0", Some("latest"), false),
            ("2026.1.0", Some(""), true),
            ("", None, false),
        ] {
            let reported = reported.map(read);
            let found = blocking_old(declared).admit(reported.as_ref()).is_admitted();
            assert_eq!(found, admitted, "{declared:?} {reported:?}");
        }
    }

    #[test]
    fn a_disabled_or_not_understood_route_refuses() {
        assert_eq!(route().refusal(), None);
        let fields = vec!["limits.maxBandwidth".to_owned()];
        let strange = route().with(|terms| terms.not_understood.clone_from(&fields));
        assert_eq!(strange.refusal(), Some(RouteRefusal::NotUnderstood(&fields)));
        let off = strange.with(|terms| terms.enabled = false);
        assert_eq!(off.refusal(), Some(RouteRefusal::Disabled));
    }
}
