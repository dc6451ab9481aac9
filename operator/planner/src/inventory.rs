//! All that a plan is made of.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use resources::{InstallationSpec, Observed, RemoteInstance, Timestamp, VersionBlock};
use route_table::{Fingerprint, HostName, InstanceId};
use serde::{Deserialize, Serialize};

/// The installation's secret, from which assigned names come: with it a restore gives every instance its name back.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed of 32 secret bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Seed(..)")
    }
}

/// Who plans: an installation, its settings and its seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name; what `spec.installation` of an instance says.
    pub name: String,
    /// Its settings.
    pub spec: InstallationSpec,
    /// Its seed.
    pub seed: Seed,
}

/// Objects and facts. Cloning is cheap, and so is replacing one entry of a clone.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The installation.
    pub settings: Arc<Settings>,
    /// Every `RemoteInstance` there is, whichever installation it names.
    pub instances: OrdMap<InstanceId, Arc<Observed<RemoteInstance>>>,
    /// Every `VersionBlock`, by name.
    pub blocks: OrdMap<String, Arc<Observed<VersionBlock>>>,
    /// What is known besides.
    pub facts: Facts,
}

/// What is known besides the objects.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The latest answers of DNS about custom domains, by domain and the instance that asks for it.
    pub proofs: OrdMap<(HostName, InstanceId), Proof>,
    /// What proxies report of an instance.
    pub reports: OrdMap<InstanceId, Arc<Report>>,
    /// Labels that were given up, and by whom.
    pub released: OrdMap<String, ReleasedLabel>,
    /// What proxies have put in force.
    pub applied: Applied,
}

/// What DNS said about a custom domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The latest definite answer, and when it was given. `SERVFAIL` and time-outs are no answers.
    pub answer: Option<(ProofAnswer, Timestamp)>,
    /// Since when definite answers say `Missing` without a break.
    pub missing_since: Option<Timestamp>,
    /// What went wrong at the last try, if it did.
    pub trouble: Option<String>,
}

/// A definite answer of DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofAnswer {
    /// The TXT record holds the instance's value.
    Txt,
    /// The name is a CNAME to the instance's random name.
    Cname,
    /// There is neither.
    Missing,
}

/// What proxies report of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Its tunnel, if one is or was up.
    pub tunnel: Option<Tunnel>,
    /// The product's version, as its agent read it.
    pub version: Option<String>,
    /// The certificate it says it shows.
    pub certificate: Option<CertificateFacts>,
}

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Is it up now?
    pub connected: bool,
    /// Since when it is so.
    pub since: Timestamp,
    /// The agent's own version.
    pub agent_version: Option<String>,
    /// SniTun version it speaks.
    pub protocol_version: Option<u8>,
}

/// A certificate as the instance reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// What a browser shows.
    pub fingerprint: Fingerprint,
    /// Names inside.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: Option<String>,
    /// Until when it holds.
    pub not_after: Option<Timestamp>,
    /// The ACME account that asked for it.
    pub acme_account_uri: Option<String>,
    /// Certificates seen for its names that its key did not ask for.
    pub strange: OrdSet<Fingerprint>,
}

/// A label that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasedLabel {
    /// Who had it; that one may take it again.
    pub by: InstanceId,
    /// When.
    pub at: Timestamp,
}

/// What proxies have put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Proxies that are ready.
    pub ready_proxies: u32,
    /// The highest revision that every ready proxy has applied; `None` before the first.
    pub revision: Option<u64>,
}
