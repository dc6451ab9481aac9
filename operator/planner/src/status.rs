//! The status of an instance and of a version block.

use policy::{Admission, BlockAction};
use resources::condition::{Condition, Conditions, Truth};
use resources::remote_instance::{CertificateStatus, VersionSource, VersionStatus};
use resources::{RemoteInstanceStatus, Timestamp, VersionBlockStatus};
use route_table::Fingerprint;

use crate::blocks::{Block, Tally};
use crate::conditions::{Dated, Finding, Known, READY, STALLED};
use crate::inventory::CertificateFacts;
use crate::text::shortened;

/// Most names of a certificate that are told.
const MAX_CERTIFICATE_NAMES: usize = 100;
/// Longest text of a certificate that is told.
const MAX_CERTIFICATE_TEXT: usize = 256;

/// Puts a status together.
pub(crate) fn instance_status(
    known: Known<'_>,
    conditions: Conditions,
    url: Option<String>,
    certificate: Option<CertificateStatus>,
) -> RemoteInstanceStatus {
    let version = version(&known);
    RemoteInstanceStatus {
        observed_generation: known.wish.generation(),
        url,
        hostnames: known.hostnames,
        version,
        blocked_by: blocked_by(&known.outcome.admission),
        tunnel: known.tunnel,
        certificate,
        conditions,
    }
}

fn version(known: &Known<'_>) -> Option<VersionStatus> {
    let effective = known.outcome.judged.version.text()?.to_owned();
    let source = known.outcome.version_source.unwrap_or(VersionSource::Declared);
    Some(VersionStatus { effective, source })
}

fn blocked_by(admission: &Admission) -> Vec<String> {
    match admission {
        Admission::Refused { blocked_by } => blocked_by.iter().map(|block| block.name.clone()).collect(),
        Admission::Admitted { .. } | Admission::RefusedUnknown { .. } => Vec::new(),
    }
}

/// A certificate in words; texts come from the instance and are bounded.
pub(crate) fn certificate(facts: &CertificateFacts) -> CertificateStatus {
    let CertificateFacts { fingerprint, names, issuer, not_after, acme_account_uri, strange: _ } = facts;
    let text = |text: &String| shortened(text, MAX_CERTIFICATE_TEXT);
    CertificateStatus {
        fingerprint_sha256: fingerprint.to_string(),
        names: names.iter().take(MAX_CERTIFICATE_NAMES).map(text).collect(),
        issuer: issuer.as_ref().map(text),
        not_after: *not_after,
        acme_account_uri: acme_account_uri.as_ref().map(text),
    }
}

/// Fingerprints that a condition's message names: how an alarm outlives a restart.
pub(crate) fn fingerprints_in(message: &str) -> impl Iterator<Item = Fingerprint> {
    message
        .split(|each: char| !each.is_ascii_hexdigit())
        .filter(|word| word.len() == 64)
        .filter_map(|word| word.parse().ok())
}

/// The status of a version block.
///
/// | block | Ready |
/// |---|---|
/// | blocks | True, InForce: keeps out so many |
/// | warns | True, Warning: would disconnect so many |
/// | cannot be read, or only in part | False, InvalidSpec or InvalidRange, and Stalled |
pub(crate) fn block_status(
    block: &Block,
    tally: Tally,
    before: Option<&VersionBlockStatus>,
    now: Timestamp,
) -> VersionBlockStatus {
    let Tally { matched, blocked, accepted } = tally;
    let conditions = Dated {
        before: before.map_or(&[], |before| before.conditions.as_slice()),
        generation: block.generation,
        now,
    };
    let said: Vec<Condition> = if let Some(problem) = &block.problem {
        let finding = |truth| Finding::new(truth, problem.reason, problem.message.clone());
        vec![
            conditions.condition(READY, finding(Truth::False)),
            conditions.condition(STALLED, finding(Truth::True)),
        ]
    } else {
        let counted =
            format!("Its ranges name the versions of {matched} instances; {accepted} of them accepted it.");
        let finding = match block.action {
            BlockAction::Block => {
                Finding::new(Truth::True, "InForce", format!("Keeps out {blocked} instances. {counted}"))
            }
            BlockAction::Warn => {
                let would =
                    format!("Only warns; as a block it would disconnect {blocked} instances. {counted}");
                Finding::new(Truth::True, "Warning", would)
            }
        };
        vec![conditions.condition(READY, finding)]
    };
    VersionBlockStatus { observed_generation: block.generation, matched, blocked, accepted, conditions: said }
}
