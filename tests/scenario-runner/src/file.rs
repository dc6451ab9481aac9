//! The format, its expectations aside. Unknown members are errors everywhere.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::expect::Expect;
use crate::moment::When;

/// A file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in one line.
    pub title: String,
    /// Why it should be so.
    pub why: String,
    /// What a world must be able to do to play it.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// The installation's settings where they differ from the defaults, and its `name`.
    #[serde(default)]
    pub installation: Map<String, Value>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// What not every world can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Objects say when they were created. An API server sets that itself: there, create them in this order.
    CreationTimes,
    /// Objects that the API server would refuse get in all the same.
    UnvalidatedObjects,
    /// An object changes what the API server would not let it change.
    MutableFields,
    /// A process that starts knows only what statuses tell, not what an object meant before it stopped making sense.
    ForgetfulRestart,
    /// Whoever plans learns which objects were deleted while nobody planned.
    RemembersDeleted,
}

/// One thing that happens, and what must have come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What happens, in words.
    pub step: String,
    /// When; otherwise a minute after the step before.
    pub at: Option<When>,
    /// Settings of the installation that change.
    #[serde(default)]
    pub installation: Map<String, Value>,
    /// Objects written.
    #[serde(default)]
    pub apply: Vec<Value>,
    /// Objects removed.
    #[serde(default)]
    pub delete: Vec<ObjectRef>,
    /// Whoever plans starts anew and remembers nothing that it did not keep.
    #[serde(default)]
    pub restart: bool,
    /// What becomes known besides.
    #[serde(default)]
    pub facts: Facts,
    /// What must have come of it.
    pub expect: Expect,
}

/// `namespace/name` is a `RemoteInstance`, a name alone a `VersionBlock`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub enum ObjectRef {
    /// A `RemoteInstance`.
    Instance(String),
    /// A `VersionBlock`.
    Block(String),
}

impl TryFrom<String> for ObjectRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let named = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        };
        match text.split_once('/') {
            Some((namespace, name)) if named(namespace) && named(name) => Ok(Self::Instance(text)),
            None if named(&text) => Ok(Self::Block(text)),
            _ => {
                Err(format!("{text:?} is no object: write namespace/name of an instance, or a block's name"))
            }
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(name) | Self::Block(name) => formatter.write_str(name),
        }
    }
}

/// What becomes known in a step. What is not named stays as it was.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The proxies.
    pub proxies: Option<Proxies>,
    /// What proxies report, by instance.
    #[serde(default)]
    pub reports: BTreeMap<String, ReportChange>,
    /// Enrolled keys, by instance: the whole list.
    #[serde(default)]
    pub enrolled: BTreeMap<String, Vec<String>>,
    /// What DNS answers when it is asked in this step, by custom domain.
    #[serde(default)]
    pub dns: BTreeMap<String, DnsAnswer>,
}

/// The proxies. Without a word there is one, and it puts every table in force at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxies {
    /// How many are ready.
    pub ready: u32,
    /// Do all of them put new tables in force? Otherwise they stay with the last one.
    #[serde(default = "yes")]
    pub follow: bool,
}

fn yes() -> bool {
    true
}

impl Default for Proxies {
    fn default() -> Self {
        Self { ready: 1, follow: true }
    }
}

/// What proxies newly say of an instance.
#[derive(Debug, Clone)]
pub enum ReportChange {
    /// `nothing`: whoever had something to say is gone.
    Nothing,
    /// These members.
    Says(Box<ReportMembers>),
}

/// Members of a report; those not named stay.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReportMembers {
    /// Is its tunnel up?
    pub connected: Option<bool>,
    /// Since when; otherwise since the step that changed it.
    pub since: Option<When>,
    /// The product's version.
    pub version: Option<String>,
    /// The agent's own version.
    pub agent_version: Option<String>,
    /// `SniTun` version.
    pub protocol_version: Option<u8>,
    /// Its certificate.
    pub certificate: Option<CertificateReport>,
}

/// A certificate, as its instance reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CertificateReport {
    /// 64 hex digits.
    pub fingerprint: String,
    /// Names inside.
    #[serde(default)]
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: Option<String>,
    /// Until when it holds.
    pub not_after: Option<When>,
    /// The ACME account that asked for it.
    pub acme_account_uri: Option<String>,
    /// Certificates seen for its names that its key did not ask for.
    #[serde(default)]
    pub strange: Vec<String>,
}

impl<'de> Deserialize<'de> for ReportChange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Change;
        impl<'de> Visitor<'de> for Change {
            type Value = ReportChange;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter
                    .write_str("what is reported, e.g. {connected: true, version: \"2026.11.1\"}, or nothing")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ReportChange, E> {
                match text {
                    "nothing" => Ok(ReportChange::Nothing),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ReportChange, A::Error> {
                let members = ReportMembers::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ReportChange::Says(Box::new(members)))
            }
        }
        deserializer.deserialize_any(Change)
    }
}

/// What DNS answers about a custom domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsAnswer {
    /// `TXT value` (at `_latchkey.` in front of the name) and `CNAME name`, none of them: `nothing`.
    Records(Vec<Record>),
    /// `SERVFAIL` or `timeout`: no answer at all.
    Trouble(String),
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A TXT record's value.
    Txt(String),
    /// Where a CNAME leads.
    Cname(String),
}

impl Record {
    fn read(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("TXT", value) => Some(Self::Txt(value.to_owned())),
            ("CNAME", name) => Some(Self::Cname(name.to_owned())),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for DnsAnswer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Answer;
        impl<'de> Visitor<'de> for Answer {
            type Value = DnsAnswer;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter
                    .write_str("\"TXT value\", \"CNAME name\", a list of these, nothing, SERVFAIL or timeout")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DnsAnswer, E> {
                match text {
                    "nothing" => Ok(DnsAnswer::Records(Vec::new())),
                    "SERVFAIL" | "timeout" => Ok(DnsAnswer::Trouble(text.to_owned())),
                    record => Record::read(record)
                        .map(|record| DnsAnswer::Records(vec![record]))
                        .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<DnsAnswer, A::Error> {
                let mut records = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    let unreadable = || A::Error::invalid_value(serde::de::Unexpected::Str(&text), &self);
                    records.push(Record::read(&text).ok_or_else(unreadable)?);
                }
                Ok(DnsAnswer::Records(records))
            }
        }
        deserializer.deserialize_any(Answer)
    }
}
