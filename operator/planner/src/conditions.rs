//! Conditions of an instance, in words a person understands.
//!
//! | condition | True | False | Unknown |
//! |---|---|---|---|
//! | Ready | proxies do what the object says | something is missing: the reason says what | |
//! | Programmed | every ready proxy has the present route | not yet, no proxy, or no route | |
//! | Connected | its tunnel is up | it is not, or never was | |
//! | `VersionAllowed` | no block in force | a block, or an unknown version where those are kept out | |
//! | `HostnamesResolved` | every name asked for is served | a conflict, or a domain not proven | nothing could be read |
//! | `CertificateTrusted` | no stranger's certificate was seen | one was, and nobody has acknowledged it | nothing reported |
//! | Reconciling | (only while so) something settles by itself or by DNS | | |
//! | Stalled | (only while so) a person has to do something | | |
//!
//! Ready does not look at Connected: a box that is switched off at home is no fault of its object.

use std::borrow::Cow;
use std::collections::HashSet;

use policy::{Admission, BlockedBy};
use resources::condition::{Condition, Conditions, Truth};
use resources::remote_instance::{HostnameState, HostnameStatus, TunnelStatus, VersionSource};
use resources::{RemoteInstanceStatus, Timestamp};
use route_table::{Fingerprint, Route};

use crate::inventory::Applied;
use crate::outcome::Outcome;
use crate::text::{listed, shortened};
use crate::wish::Wish;

pub(crate) const READY: &str = "Ready";
pub(crate) const PROGRAMMED: &str = "Programmed";
pub(crate) const CONNECTED: &str = "Connected";
pub(crate) const VERSION_ALLOWED: &str = "VersionAllowed";
pub(crate) const HOSTNAMES_RESOLVED: &str = "HostnamesResolved";
pub(crate) const CERTIFICATE_TRUSTED: &str = "CertificateTrusted";
pub(crate) const RECONCILING: &str = "Reconciling";
pub(crate) const STALLED: &str = "Stalled";

/// Most things that one sentence lists.
const MOST_LISTED: usize = 8;

/// Longest message of a condition, in characters: the definition of the resource takes no longer one.
const MAX_MESSAGE: usize = 32_768;

/// What is known of one thing: the part of a condition that does not depend on time.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    truth: Truth,
    reason: &'static str,
    message: Cow<'static, str>,
}

impl Finding {
    pub(crate) fn new(truth: Truth, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { truth, reason, message: message.into() }
    }

    fn holds(&self) -> bool {
        self.truth == Truth::True
    }
}

/// Puts findings into conditions: the time moves only where the truth changed.
pub(crate) struct Dated<'a> {
    pub(crate) before: &'a [Condition],
    pub(crate) generation: Option<i64>,
    pub(crate) now: Timestamp,
}

impl Dated<'_> {
    pub(crate) fn condition(&self, kind: &'static str, finding: Finding) -> Condition {
        let Finding { truth, reason, message } = finding;
        let message =
            if message.len() > MAX_MESSAGE { shortened(&message, MAX_MESSAGE).into() } else { message };
        let before = self.before.iter().find(|before| before.kind == kind && before.status == truth);
        Condition {
            kind: Cow::Borrowed(kind),
            status: truth,
            reason: Cow::Borrowed(reason),
            message,
            last_transition_time: before.map_or(self.now, |before| before.last_transition_time),
            observed_generation: self.generation,
        }
    }
}

/// Lists of conditions that say the same become one list: most of a large fleet is in order in the same words.
#[derive(Default)]
pub(crate) struct AlikeConditions(HashSet<Conditions, foldhash::fast::RandomState>);

impl AlikeConditions {
    pub(crate) fn share(
        &mut self,
        list: Vec<Condition>,
        before: Option<&RemoteInstanceStatus>,
    ) -> Conditions {
        if let Some(before) = before.filter(|before| *before.conditions == *list) {
            return before.conditions.clone();
        }
        if let Some(known) = self.0.get(list.as_slice()) {
            return known.clone();
        }
        let conditions = Conditions::from(list);
        self.0.insert(conditions.clone());
        conditions
    }
}

/// Everything conditions are made from.
pub(crate) struct Known<'a> {
    pub(crate) wish: &'a Wish,
    pub(crate) outcome: &'a Outcome,
    /// The route, and the revision that brought it.
    pub(crate) route: Option<(&'a Route, u64)>,
    pub(crate) applied: Applied,
    pub(crate) hostnames: Vec<HostnameStatus>,
    pub(crate) tunnel: Option<TunnelStatus>,
    /// Certificates that were seen and are not its own; `None` while nothing was reported.
    pub(crate) strange: Option<Vec<Fingerprint>>,
}

impl Known<'_> {
    pub(crate) fn conditions(&self, before: Option<&RemoteInstanceStatus>, now: Timestamp) -> Vec<Condition> {
        let conditions = Dated {
            before: before.map_or(&[], |before| &before.conditions),
            generation: self.wish.generation(),
            now,
        };
        let (programmed, version, names) = (self.programmed(), self.version_allowed(), self.names_resolved());
        let (ready, standing) = self.ready(&programmed, &version, &names);
        let extra = match standing {
            Standing::Still => None,
            Standing::Reconciling => Some((RECONCILING, ready.clone())),
            Standing::Stalled => Some((STALLED, ready.clone())),
        };
        let mut all = Vec::with_capacity(6 + usize::from(extra.is_some()));
        all.push(conditions.condition(READY, ready));
        all.push(conditions.condition(PROGRAMMED, programmed));
        all.push(conditions.condition(CONNECTED, self.connected()));
        all.push(conditions.condition(VERSION_ALLOWED, version));
        all.push(conditions.condition(HOSTNAMES_RESOLVED, names));
        all.push(conditions.condition(CERTIFICATE_TRUSTED, self.certificate_trusted()));
        if let Some((kind, finding)) = extra {
            all.push(conditions.condition(kind, Finding { truth: Truth::True, ..finding }));
        }
        all
    }

    /// Whether all is as the object says, and if not, who has to move: the first row that applies.
    ///
    /// | case | Ready | besides |
    /// |---|---|---|
    /// | the object makes no sense | False, InvalidSpec | Stalled |
    /// | enabled, a block or an unknown version keeps it out | False, that reason | Stalled |
    /// | a name is in conflict | False, NameConflict | Stalled |
    /// | an agent key is another's, or an enrolled key makes no sense | False, AgentKeyConflict, InvalidAgentKey | Stalled |
    /// | a domain is not proven | False, PendingVerification | Reconciling |
    /// | proxies do not have the route yet | False, that reason | Reconciling |
    /// | disabled, and proxies know | True, Disabled | |
    /// | else | True, Serving | |
    fn ready(&self, programmed: &Finding, version: &Finding, names: &Finding) -> (Finding, Standing) {
        let no = |reason, message: Cow<'static, str>| Finding { truth: Truth::False, reason, message };
        if let Some(nonsense) = self.wish.nonsense() {
            let rest = match self.route {
                None => "Nothing is served until that is mended.",
                Some((route, _)) if !route.enabled => "Remote access is off until that is mended.",
                Some(_) => "What was read last stays in force.",
            };
            let message = format!("{}: {}. {rest}", nonsense.path, nonsense.problem);
            return (no("InvalidSpec", message.into()), Standing::Stalled);
        }
        if self.wish.enabled && !version.holds() {
            return (no(version.reason, version.message.clone()), Standing::Stalled);
        }
        if names.reason == NAME_CONFLICT {
            return (no(names.reason, names.message.clone()), Standing::Stalled);
        }
        if let Some((key, holder)) = self.outcome.foreign_keys.first() {
            let message = format!(
                "agent key {key} belongs to {holder}; every agent has its own key: remove it here or there"
            );
            return (no("AgentKeyConflict", message.into()), Standing::Stalled);
        }
        if let Some(problem) = &self.wish.bad_keys {
            return (no("InvalidAgentKey", problem.clone().into()), Standing::Stalled);
        }
        if !names.holds() {
            return (no(names.reason, names.message.clone()), Standing::Reconciling);
        }
        if !programmed.holds() {
            return (no(programmed.reason, programmed.message.clone()), Standing::Reconciling);
        }
        let yes = if self.wish.enabled {
            Finding::new(Truth::True, "Serving", "Visitors reach the instance while its agent is connected.")
        } else {
            Finding::new(Truth::True, "Disabled", "Remote access is off, as spec.enabled says.")
        };
        (yes, Standing::Still)
    }

    /// | case | Programmed |
    /// |---|---|
    /// | no route | False, NoRoute |
    /// | no proxy is ready | False, NoProxies |
    /// | a ready proxy has an older revision than the one that brought the route | False, NotApplied |
    /// | else | True, Applied |
    fn programmed(&self) -> Finding {
        match self.route {
            None => Finding::new(Truth::False, "NoRoute", "There is nothing that proxies could be told."),
            Some(_) if self.applied.ready_proxies == 0 => {
                Finding::new(Truth::False, "NoProxies", "No proxy is ready.")
            }
            Some((_, revision)) if self.applied.revision.is_some_and(|applied| applied >= revision) => {
                Finding::new(Truth::True, "Applied", "Every ready proxy has the present route.")
            }
            Some(_) => {
                Finding::new(Truth::False, "NotApplied", "Not every ready proxy has the present route yet.")
            }
        }
    }

    fn connected(&self) -> Finding {
        match &self.tunnel {
            Some(tunnel) if tunnel.connected => {
                Finding::new(Truth::True, "TunnelUp", "The agent's tunnel is up.")
            }
            Some(TunnelStatus { since: Some(since), .. }) => {
                Finding::new(Truth::False, "TunnelDown", format!("There has been no tunnel since {since}."))
            }
            Some(_) => Finding::new(Truth::False, "TunnelDown", "There is no tunnel."),
            None => Finding::new(Truth::False, "NeverConnected", "No agent has connected yet."),
        }
    }

    /// | decision | declared version | `VersionAllowed` |
    /// |---|---|---|
    /// | refused by blocks | any | False, Blocked, with reasons and links |
    /// | refused as unknown | any | False, `UnknownVersion` |
    /// | admitted, a block warns | any | True, Warned |
    /// | admitted, blocks accepted | any | True, Accepted |
    /// | admitted, nobody knows the version | any | True, `UnknownVersion` |
    /// | admitted | another than the reported one | True, `DeclaredVersionDiffers` |
    /// | admitted | the same, or none | True, Allowed |
    ///
    /// A declared version that differs is told in every message, whatever the reason.
    fn version_allowed(&self) -> Finding {
        let judged = &self.outcome.judged;
        let version = judged.version.text().unwrap_or("unknown");
        let differs = self.declared_differs();
        let told = |truth, reason, message: String| match &differs {
            None => Finding::new(truth, reason, message),
            Some(differs) => Finding::new(truth, reason, format!("{message} {differs}")),
        };
        match &self.outcome.admission {
            Admission::Refused { blocked_by } => {
                let names: Vec<&str> = blocked_by.iter().map(|block| block.name.as_str()).collect();
                let message = format!(
                    "Version {version} is blocked: {}. Update it, or accept the risk in spec.acceptedBlocks ({}).",
                    reasons(blocked_by),
                    names.join(", ")
                );
                told(Truth::False, "Blocked", message)
            }
            Admission::RefusedUnknown { text: None } => Finding::new(
                Truth::False,
                "UnknownVersion",
                "Nobody has told its version, and the installation keeps unknown versions out. Declare it in \
                 spec.version, or have the agent report it.",
            ),
            Admission::RefusedUnknown { text: Some(text) } => {
                let message = format!(
                    "{text:?} cannot be read as a version of {}, and the installation keeps unknown versions out.",
                    self.product()
                );
                told(Truth::False, "UnknownVersion", message)
            }
            Admission::Admitted { warned_by, .. } if !warned_by.is_empty() => told(
                Truth::True,
                "Warned",
                format!("Version {version} should be updated: {}.", reasons(warned_by)),
            ),
            Admission::Admitted { accepted, .. } if !accepted.is_empty() => {
                let message =
                    format!("Version {version} is named by {}, accepted by its owner.", accepted.join(", "));
                told(Truth::True, "Accepted", message)
            }
            Admission::Admitted { .. } => match (judged.version.known(), &differs) {
                (Some(_), Some(differs)) => {
                    Finding::new(Truth::True, "DeclaredVersionDiffers", differs.clone())
                }
                (Some(_), None) => {
                    Finding::new(Truth::True, "Allowed", "No version block names its version.")
                }
                (None, _) => match judged.version.text() {
                    Some(text) => {
                        let message = format!(
                            "{text:?} cannot be read as a version of {}; the installation lets unknown versions in.",
                            self.product()
                        );
                        told(Truth::True, "UnknownVersion", message)
                    }
                    None => Finding::new(
                        Truth::True,
                        "UnknownVersion",
                        "Nobody has told its version; the installation lets unknown versions in.",
                    ),
                },
            },
        }
    }

    fn product(&self) -> &str {
        self.wish.spec().map_or("this product", |spec| spec.product.as_str())
    }

    /// A sentence where the spec declares another version than the one reported.
    fn declared_differs(&self) -> Option<String> {
        let spec = self.wish.spec()?;
        let declared = spec.version.as_deref()?;
        if self.outcome.version_source != Some(VersionSource::Reported) {
            return None;
        }
        let reported = &self.outcome.judged.version;
        if reported.text() == Some(declared) {
            return None;
        }
        let same = policy::ReportedVersion::read(declared, spec.product.scheme()) == *reported;
        let reported = reported.text()?;
        (!same).then(|| format!("spec.version says {declared}, its agent reports {reported}, which counts."))
    }

    fn names_resolved(&self) -> Finding {
        if self.wish.sense.is_none() {
            return Finding::new(Truth::Unknown, "InvalidSpec", "What names it asks for could not be read.");
        }
        let in_state = |state| self.hostnames.iter().filter(move |each| each.state == state);
        let told = |state| {
            let lines: Vec<String> =
                in_state(state).map(|each| format!("{}: {}", each.name, each.message)).collect();
            listed(lines.into_iter(), MOST_LISTED)
        };
        if in_state(HostnameState::Conflict).next().is_some() {
            Finding::new(Truth::False, NAME_CONFLICT, told(HostnameState::Conflict))
        } else if in_state(HostnameState::PendingVerification).next().is_some() {
            Finding::new(Truth::False, "PendingVerification", told(HostnameState::PendingVerification))
        } else {
            Finding::new(Truth::True, "AllServing", "Every name it asks for is its own.")
        }
    }

    fn certificate_trusted(&self) -> Finding {
        match self.strange.as_deref() {
            None => {
                Finding::new(Truth::Unknown, "NotReported", "Its agent has not reported a certificate yet.")
            }
            Some([]) => Finding::new(
                Truth::True,
                "NoStrangeCertificate",
                "No certificate was seen for its names that its own key did not ask for.",
            ),
            Some(strange) => {
                let list = listed(strange.iter().map(ToString::to_string), MOST_LISTED);
                let message = format!(
                    "Certificates were seen for its names that its own key did not ask for: {list}. Find out who asked \
                     for them; then list them in spec.acknowledgedCertificates."
                );
                Finding::new(Truth::False, "StrangeCertificate", message)
            }
        }
    }
}

const NAME_CONFLICT: &str = "NameConflict";

/// Who has to move.
enum Standing {
    /// Nobody.
    Still,
    /// It settles by itself, or by records in DNS.
    Reconciling,
    /// A person, at this object or another.
    Stalled,
}

/// `Directory traversal (core-2021-1-4, https://...)`
fn reasons(blocks: &[BlockedBy]) -> String {
    let told = |block: &BlockedBy| match &block.more_info {
        Some(link) => format!("{} ({}, {link})", block.reason, block.name),
        None => format!("{} ({})", block.reason, block.name),
    };
    listed(blocks.iter().map(told), MOST_LISTED)
}
