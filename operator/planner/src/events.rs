//! What is told beside an object when something changed.

use resources::condition::{Condition, Truth};
use resources::remote_instance::{HostnameState, HostnameStatus};
use resources::{RemoteInstanceStatus, VersionBlockStatus};
use route_table::InstanceId;
use serde::Serialize;

use crate::conditions::{CERTIFICATE_TRUSTED, CONNECTED, HOSTNAMES_RESOLVED, READY, VERSION_ALLOWED};

/// Something that happened, told to people beside the object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Event {
    /// About which object.
    pub about: Subject,
    /// Is it bad news?
    pub kind: EventKind,
    /// One word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// A `RemoteInstance`.
    Instance(InstanceId),
    /// A `VersionBlock`.
    Block(String),
}

/// Is it bad news?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum EventKind {
    /// No.
    Normal,
    /// Yes.
    Warning,
}

/// Reasons of `Ready` that are news themselves. The others stand in a condition of their own, or are told while things
/// settle.
const NEWS_OF_READY: [&str; 3] = ["InvalidSpec", "AgentKeyConflict", "InvalidAgentKey"];

/// Reasons that are bad news although nothing is False.
const BAD_NEWS: [&str; 1] = ["Warned"];

/// Reasons that are no bad news although something is False.
const NO_BAD_NEWS: [&str; 3] = ["TunnelDown", "NeverConnected", "PendingVerification"];

/// What a change of an instance's status is worth telling.
///
/// | condition | before | now | event |
/// |---|---|---|---|
/// | `VersionAllowed`, `HostnamesResolved`, `CertificateTrusted`, Connected | same truth and reason | | none |
/// | the same | another truth or reason | any but Unknown | one, with the condition's reason and message |
/// | the same | no status yet | True, and not Warned | none, except Connected |
/// | the same | no status yet | False | one, except `NeverConnected` and `TunnelDown` |
/// | `VersionAllowed` | blocked | blocked by others | one |
/// | `HostnamesResolved` | a name was served | it is still asked for, and not served | a Warning |
/// | Ready | another reason | `InvalidSpec`, `AgentKeyConflict`, `InvalidAgentKey` | a Warning |
/// | Ready | `InvalidSpec` | another reason | one, Readable |
///
/// Switching on and off is told by nobody: who did it knows. What is False is a Warning, except that a tunnel is
/// down or a domain waits for its record.
pub(crate) fn instance_events(
    id: &InstanceId,
    before: Option<&RemoteInstanceStatus>,
    now: &RemoteInstanceStatus,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut tell = |kind, reason: &str, message: &str| {
        let about = Subject::Instance(id.clone());
        events.push(Event { about, kind, reason: reason.to_owned(), message: message.to_owned() });
    };
    for kind in [VERSION_ALLOWED, HOSTNAMES_RESOLVED, CERTIFICATE_TRUSTED, CONNECTED] {
        let Some(condition) = find(&now.conditions, kind) else { continue };
        let known = before.and_then(|before| find(&before.conditions, kind));
        let blocked_by_others = kind == VERSION_ALLOWED
            && condition.status == Truth::False
            && before.is_some_and(|before| before.blocked_by != now.blocked_by);
        let lost = kind == HOSTNAMES_RESOLVED && before.is_some_and(|before| lost_a_name(before, now));
        let news = match known {
            Some(known) => !alike(known, condition) || blocked_by_others || lost,
            None if kind == CONNECTED => condition.status == Truth::True,
            None => condition.status == Truth::False || is_bad(condition),
        };
        if news && condition.status != Truth::Unknown {
            let bad = if is_bad(condition) || lost { EventKind::Warning } else { EventKind::Normal };
            tell(bad, &condition.reason, &condition.message);
        }
    }
    let reason =
        |status: &RemoteInstanceStatus| find(&status.conditions, READY).map(|ready| ready.reason.clone());
    let (was, ready) = (before.and_then(reason), find(&now.conditions, READY));
    if let Some(ready) = ready.filter(|ready| was.as_ref() != Some(&ready.reason)) {
        if NEWS_OF_READY.contains(&&*ready.reason) {
            tell(EventKind::Warning, &ready.reason, &ready.message);
        } else if was.as_deref() == Some("InvalidSpec") {
            tell(EventKind::Normal, "Readable", "The object makes sense again.");
        }
    }
    events
}

/// What a change of a version block's status is worth telling: another reason of `Ready`. The first sight of a block
/// that is in order is none.
pub(crate) fn block_event(
    name: &str,
    before: Option<&VersionBlockStatus>,
    now: &VersionBlockStatus,
) -> Option<Event> {
    let ready = find(&now.conditions, READY)?;
    let known = before.and_then(|before| find(&before.conditions, READY));
    let bad = ready.status == Truth::False;
    let news = known.map_or(bad, |known| !alike(known, ready));
    news.then(|| Event {
        about: Subject::Block(name.to_owned()),
        kind: if bad { EventKind::Warning } else { EventKind::Normal },
        reason: ready.reason.to_string(),
        message: ready.message.to_string(),
    })
}

/// Is there a name that led to it and is still asked for, but leads to it no more?
fn lost_a_name(before: &RemoteInstanceStatus, now: &RemoteInstanceStatus) -> bool {
    let serves = |each: &HostnameStatus| each.state == HostnameState::Serving;
    let before = before.hostnames.iter().filter(|each| serves(each));
    let mut lost = now.hostnames.iter().filter(|each| !serves(each));
    // Nearly always nothing is lost, so the second list is looked at rarely.
    lost.any(|each| before.clone().any(|held| held.name == each.name))
}

fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

fn alike(left: &Condition, right: &Condition) -> bool {
    left.status == right.status && left.reason == right.reason
}

fn is_bad(condition: &Condition) -> bool {
    let listed = |list: &[&str]| list.contains(&&*condition.reason);
    listed(&BAD_NEWS) || (condition.status == Truth::False && !listed(&NO_BAD_NEWS))
}
