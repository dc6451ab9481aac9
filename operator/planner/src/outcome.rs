//! What became of everything one instance asked for: the plan about it, before it is put into words.

use std::sync::Arc;

use policy::Admission;
use resources::Timestamp;
use resources::remote_instance::VersionSource;
use route_table::{Fingerprint, HostName, InstanceId};

use crate::blocks::Judged;
use crate::custom_domains::Standing;

/// What became of an instance's wishes.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The label it asked for, if it asked for one.
    pub(crate) label: Option<LabelOutcome>,
    /// One for each custom domain asked for, in that order.
    pub(crate) domains: Vec<DomainOutcome>,
    /// Agent keys that are another instance's, with who has them.
    pub(crate) foreign_keys: Vec<(Fingerprint, InstanceId)>,
    /// Its version, and what blocks say about that.
    pub(crate) judged: Arc<Judged>,
    /// Who says that this is the version; `None` where nobody says anything.
    pub(crate) version_source: Option<VersionSource>,
    /// Whether the version may be reached.
    pub(crate) admission: Admission,
}

/// What became of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LabelOutcome {
    /// It is this instance's.
    Held(HostName),
    /// Nobody gets it.
    Refused { name: String, why: String },
    /// Another has it.
    Taken { name: HostName, by: InstanceId },
    /// It is kept for the one who had it.
    Quarantined { name: HostName, by: InstanceId, until: Timestamp },
}

/// What became of a custom domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainOutcome {
    pub(crate) name: HostName,
    pub(crate) is: DomainIs,
    /// Since when DNS shows no proof.
    pub(crate) missing_since: Option<Timestamp>,
    /// What went wrong when DNS was asked last.
    pub(crate) trouble: Option<String>,
}

/// What a custom domain is to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DomainIs {
    /// Nobody's: it is at or below the installation's own.
    Refused,
    /// Served by another.
    Taken(InstanceId),
    /// What DNS says decides.
    Ours(Standing),
}

impl Outcome {
    /// Names that lead to the instance besides the random one: the label first, then custom domains.
    pub(crate) fn served(&self) -> impl Iterator<Item = &HostName> {
        let label = match &self.label {
            Some(LabelOutcome::Held(name)) => Some(name),
            _ => None,
        };
        let domains = self.domains.iter().filter_map(|domain| match domain.is {
            DomainIs::Ours(standing) if standing.serves() => Some(&domain.name),
            _ => None,
        });
        label.into_iter().chain(domains)
    }
}
