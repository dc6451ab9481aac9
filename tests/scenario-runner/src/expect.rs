//! What a step expects. A member that is not named is not looked at; what is named must be so.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use policy::UnknownVersion;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Unexpected, Visitor};

use crate::moment::When;
use crate::shorthand::{ExpectedCondition, ExpectedEvent, ExpectedState};

/// What must have come of a step.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Expect {
    /// What proxies know. An instance that is not named must have no route.
    pub routes: Option<Routes>,
    /// Statuses of instances.
    #[serde(default)]
    pub statuses: BTreeMap<String, Expected<StatusMembers>>,
    /// Statuses of version blocks.
    #[serde(default)]
    pub blocks: BTreeMap<String, Expected<BlockMembers>>,
    /// Everything that was told in this step, in any order.
    pub events: Option<Vec<ExpectedEvent>>,
    /// When the passing of time alone changes something; seen from this step.
    pub next_run: Option<ExpectedRun>,
}

impl Expect {
    /// Is nothing expected at all?
    pub fn is_empty(&self) -> bool {
        let Self { routes, statuses, blocks, events, next_run } = self;
        routes.is_none() && statuses.is_empty() && blocks.is_empty() && events.is_none() && next_run.is_none()
    }
}

/// A thing with these members, or `absent`.
#[derive(Debug, Clone)]
pub enum Expected<T> {
    /// There is no such thing.
    Absent,
    /// There is, and its members are so.
    Is(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Expected<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Expected<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("what is expected of it, or absent")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Expected<T>, E> {
                match text {
                    "absent" => Ok(Expected::Absent),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Expected<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Expected::Is)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// Routes by instance.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// By instance.
    pub named: BTreeMap<String, Expected<RouteMembers>>,
    /// `others: any`: instances that are not named may have a route.
    pub others: bool,
}

impl<'de> Deserialize<'de> for Routes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ById;
        impl<'de> Visitor<'de> for ById {
            type Value = Routes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("routes by instance; {} where there is none")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Routes, A::Error> {
                let mut routes = Routes::default();
                while let Some(id) = map.next_key::<String>()? {
                    if id == "others" {
                        let text = map.next_value::<String>()?;
                        if text != "any" {
                            return Err(A::Error::custom(
                                "others can only be any; without it there are none",
                            ));
                        }
                        routes.others = true;
                    } else {
                        routes.named.insert(id, map.next_value()?);
                    }
                }
                Ok(routes)
            }
        }
        deserializer.deserialize_map(ById)
    }
}

/// What a proxy knows of an instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RouteMembers {
    /// Every name that leads to it, in any order.
    pub hostnames: Option<Vec<String>>,
    /// Does a visitor get through, as far as the table and what was reported decide?
    pub served: Option<bool>,
    /// Blocks a proxy would name to the agent when it asks for a session.
    pub refused_by: Option<Vec<String>>,
    /// Is remote access on?
    pub enabled: Option<bool>,
    /// Its product.
    pub product: Option<String>,
    /// Its declared version, or `none`.
    pub version: Option<String>,
    /// What a version that cannot be told means.
    pub unknown_version: Option<UnknownVersion>,
    /// Blocks a proxy compares with, by name, in any order.
    pub blocks: Option<Vec<String>>,
    /// Accepted blocks, in any order.
    pub accepted_blocks: Option<Vec<String>>,
    /// Networks, in any order.
    pub allow_networks: Option<Vec<String>>,
    /// Networks, in any order.
    pub deny_networks: Option<Vec<String>>,
    /// Visitors at once.
    pub max_connections: Option<u32>,
    /// New visitors a minute from one address.
    pub new_connections_per_minute_per_client: Option<u32>,
    /// Tunnels at once.
    pub tunnels: Option<u32>,
    /// Keys of its agents, in any order.
    pub agent_keys: Option<Vec<String>>,
}

/// The status of an instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct StatusMembers {
    /// The generation it is about.
    pub observed_generation: Option<i64>,
    /// Its URL, or `none`.
    pub url: Option<String>,
    /// Every name, and what became of it.
    pub hostnames: Option<BTreeMap<String, ExpectedHostname>>,
    /// The version that counts and who said so, e.g. `2026.11.1 Reported`, or `none`.
    pub version: Option<String>,
    /// Names of blocks in force, in any order.
    pub blocked_by: Option<Vec<String>>,
    /// Its tunnel.
    pub tunnel: Option<Expected<TunnelMembers>>,
    /// Its certificate.
    pub certificate: Option<Expected<CertificateMembers>>,
    /// Conditions, e.g. `Ready: True Serving`.
    pub conditions: BTreeMap<String, ExpectedCondition>,
}

/// What became of a name: its state in one line, or with more members.
#[derive(Debug, Clone)]
pub struct ExpectedHostname {
    /// Its state.
    pub state: ExpectedState,
    /// `Assigned` or `Custom`.
    pub kind: Option<String>,
    /// The DNS record that proves it: its type, name and value, or `none`.
    pub verification: Option<Expected<VerificationMembers>>,
}

impl<'de> Deserialize<'de> for ExpectedHostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            state: ExpectedState,
            kind: Option<String>,
            verification: Option<Expected<VerificationMembers>>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ExpectedHostname;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a state, e.g. Serving, or {state, kind, verification}")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ExpectedHostname, E> {
                let state = ExpectedState::try_from(text.to_owned()).map_err(E::custom)?;
                Ok(ExpectedHostname { state, kind: None, verification: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ExpectedHostname, A::Error> {
                let Members { state, kind, verification } =
                    Members::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ExpectedHostname { state, kind, verification })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A DNS record to be made.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerificationMembers {
    /// TXT or CNAME.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its value.
    pub value: Option<String>,
}

/// A tunnel.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TunnelMembers {
    /// Is it up?
    pub connected: Option<bool>,
    /// Since when; seen from this step.
    pub since: Option<When>,
    /// The agent's own version.
    pub agent_version: Option<String>,
    /// `SniTun` version.
    pub protocol_version: Option<i32>,
}

/// A certificate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CertificateMembers {
    /// 64 hex digits.
    pub fingerprint_sha256: Option<String>,
    /// Names inside, in any order.
    pub names: Option<Vec<String>>,
    /// Who signed it.
    pub issuer: Option<String>,
    /// Until when it holds; seen from this step.
    pub not_after: Option<When>,
    /// The ACME account that asked for it.
    pub acme_account_uri: Option<String>,
}

/// The status of a version block.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BlockMembers {
    /// The generation it is about.
    pub observed_generation: Option<i64>,
    /// Instances whose version it names.
    pub matched: Option<i64>,
    /// Those it keeps out, or would keep out.
    pub blocked: Option<i64>,
    /// Those whose owner accepted it.
    pub accepted: Option<i64>,
    /// Conditions.
    pub conditions: BTreeMap<String, ExpectedCondition>,
}

/// A time, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ExpectedRun {
    /// Time alone changes nothing.
    None,
    /// It does then.
    At(When),
}

impl TryFrom<String> for ExpectedRun {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "none" { Ok(Self::None) } else { When::try_from(text).map(Self::At) }
    }
}
