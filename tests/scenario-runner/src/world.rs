//! Whatever plans: given what happens, it tells what came of it.

use std::collections::BTreeMap;

use resources::{RemoteInstanceStatus, Timestamp, VersionBlockStatus};
use route_table::Route;
use serde_json::{Map, Value};

use crate::file::{CertificateReport, DnsAnswer, ObjectRef, Proxies};

/// Something a scenario can be played in.
pub trait World {
    /// Lets happen what happens in a step, waits until nothing moves any more, and tells what came of it.
    fn play(&mut self, instant: &Instant<'_>) -> Result<Outcome, String>;
}

/// What happens in a step.
#[derive(Debug)]
pub struct Instant<'s> {
    /// Now.
    pub now: Timestamp,
    /// The installation: a document of kind `Installation`.
    pub installation: &'s Value,
    /// Objects written; each complete.
    pub apply: &'s [Value],
    /// Objects removed.
    pub delete: &'s [ObjectRef],
    /// Start anew, remembering only what was kept.
    pub restart: bool,
    /// The proxies.
    pub proxies: Proxies,
    /// What proxies report now; an instance not named is not spoken of.
    pub reports: &'s BTreeMap<String, Reported>,
    /// Enrolled keys of every instance that ever enrolled one.
    pub enrolled: &'s BTreeMap<String, Vec<String>>,
    /// Custom domains that DNS is asked about in this step, and what it says.
    pub dns: &'s BTreeMap<String, DnsAnswer>,
}

/// What proxies report of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// Its tunnel.
    pub tunnel: Option<TunnelSeen>,
    /// The product's version.
    pub version: Option<String>,
    /// Its certificate, and until when it holds.
    pub certificate: Option<CertificateSeen>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSeen {
    /// As the file says.
    pub told: CertificateReport,
    /// Until when it holds.
    pub not_after: Option<Timestamp>,
}

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSeen {
    /// Is it up?
    pub connected: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// The agent's own version.
    pub agent_version: Option<String>,
    /// `SniTun` version.
    pub protocol_version: Option<u8>,
}

/// What came of a step. A world that cannot see something says `None`.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Routes of proxies, by instance.
    pub routes: BTreeMap<String, Route>,
    /// Statuses of instances.
    pub instances: BTreeMap<String, RemoteInstanceStatus>,
    /// Statuses of version blocks.
    pub blocks: BTreeMap<String, VersionBlockStatus>,
    /// What was told in this step.
    pub events: Option<Vec<SeenEvent>>,
    /// When the passing of time alone changes something; `Some(None)`: never.
    pub next_run: Option<Option<Timestamp>>,
}

/// Something that was told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenEvent {
    /// `Normal` or `Warning`.
    pub kind: String,
    /// About which object.
    pub about: ObjectRef,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}

/// The whole document of an installation, defaults included.
pub(crate) fn installation(settings: &Map<String, Value>) -> Value {
    let mut spec = settings.clone();
    let name = spec.remove("name").unwrap_or_else(|| "main".into());
    spec.entry("domain").or_insert_with(|| "ui.example.com".into());
    serde_json::json!({
        "apiVersion": resources::API_VERSION,
        "kind": "Installation",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// Verification values that statuses told, as the owners of domains remember them.
#[derive(Debug, Clone, Default)]
pub struct ToldValues(BTreeMap<(String, String), String>);

impl ToldValues {
    /// Reads statuses.
    pub fn learn<'s>(&mut self, statuses: impl Iterator<Item = (&'s str, &'s RemoteInstanceStatus)>) {
        for (id, status) in statuses {
            for host in &status.hostnames {
                if let Some(record) = host.verification.as_ref().filter(|record| record.kind == "TXT") {
                    self.0.insert((host.name.clone(), id.to_owned()), record.value.clone());
                }
            }
        }
    }

    /// The value that proves the domain for the instance, if a status told it.
    pub fn get(&self, domain: &str, id: &str) -> Option<&str> {
        self.0.get(&(domain.to_owned(), id.to_owned())).map(String::as_str)
    }
}
