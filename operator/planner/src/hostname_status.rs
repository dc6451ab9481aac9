//! What a status says of names.

use resources::remote_instance::{HostnameKind, HostnameState, HostnameStatus, Verification};

use crate::custom_domains::Standing;
use crate::names::verification_name;
use crate::outcome::{DomainIs, DomainOutcome, LabelOutcome, Outcome};
use crate::text::shortened;
use crate::wish::Wish;

/// Longest text about trouble with DNS that is told.
const MAX_TROUBLE: usize = 200;

/// Every name with its state: the label asked for, the random name, then custom domains as written.
///
/// `Serving` means that the name is this instance's. Whether proxies know it already, `Programmed` tells; whether
/// visitors get in, `Ready`.
///
/// | name | case | state |
/// |---|---|---|
/// | random | always | Serving |
/// | label | held | Serving |
/// | label | reserved, no label, or looks like a random one | Conflict |
/// | label | another instance has it | Conflict, naming it |
/// | label | given up by another less than the quarantine ago | Conflict, naming that one and the day |
/// | domain | at or below the installation's | Conflict |
/// | domain | another instance serves it | Conflict, naming it |
/// | domain | proven | Serving |
/// | domain | proven, and DNS denies it since less than ten minutes | Serving, with a warning |
/// | domain | not proven, or not any more | PendingVerification, with the record to make |
pub(crate) fn hostnames(wish: &Wish, outcome: &Outcome, verification: Option<&str>) -> Vec<HostnameStatus> {
    let mut hostnames = Vec::with_capacity(1 + outcome.domains.len() + usize::from(outcome.label.is_some()));
    hostnames.extend(outcome.label.as_ref().map(label));
    if wish.sense.is_some() {
        hostnames.push(assigned(wish.random.as_str().to_owned(), HostnameState::Serving, String::new()));
    }
    hostnames.extend(outcome.domains.iter().map(|each| domain(wish, each, verification.unwrap_or_default())));
    hostnames
}

fn assigned(name: String, state: HostnameState, message: String) -> HostnameStatus {
    HostnameStatus { name, kind: HostnameKind::Assigned, state, message, verification: None }
}

fn label(outcome: &LabelOutcome) -> HostnameStatus {
    match outcome {
        LabelOutcome::Held(name) => assigned(name.as_str().to_owned(), HostnameState::Serving, String::new()),
        LabelOutcome::Refused { name, why } => assigned(name.clone(), HostnameState::Conflict, why.clone()),
        LabelOutcome::Taken { name, by } => {
            let message = format!("{by} has this name; choose another label, or have it given up there");
            assigned(name.as_str().to_owned(), HostnameState::Conflict, message)
        }
        LabelOutcome::Quarantined { name, by, until } => {
            let message = format!("{by} gave this name up; nobody else gets it before {until}");
            assigned(name.as_str().to_owned(), HostnameState::Conflict, message)
        }
    }
}

fn domain(wish: &Wish, outcome: &DomainOutcome, verification: &str) -> HostnameStatus {
    let DomainOutcome { name, is, missing_since, trouble } = outcome;
    let record = || Verification {
        kind: "TXT".to_owned(),
        name: verification_name(name),
        value: verification.to_owned(),
    };
    let how = || {
        format!(
            "make a TXT record {} with the value {verification}, or a CNAME record to {}",
            verification_name(name),
            wish.random
        )
    };
    let (state, mut message, verification) = match is {
        DomainIs::Refused => (
            HostnameState::Conflict,
            "names below the installation's own domain are not custom domains; ask for a label with spec.hostname"
                .to_owned(),
            None,
        ),
        DomainIs::Taken(by) => (
            HostnameState::Conflict,
            format!("{by} has shown that this domain is its own; take it away there first"),
            Some(record()),
        ),
        DomainIs::Ours(Standing::Proven) => (HostnameState::Serving, String::new(), Some(record())),
        DomainIs::Ours(Standing::Doubted) => (
            HostnameState::Serving,
            format!("DNS does not show the record any more; the domain will be withdrawn. To keep it, {}", how()),
            Some(record()),
        ),
        DomainIs::Ours(Standing::Unproven) => {
            let denied = missing_since.map(|since| format!(" (DNS has shown neither since {since})"));
            let message = format!("to show that it is meant, {}{}", how(), denied.unwrap_or_default());
            (HostnameState::PendingVerification, message, Some(record()))
        }
    };
    if let Some(trouble) = trouble {
        let told = shortened(trouble, MAX_TROUBLE);
        message = if message.is_empty() {
            format!("DNS could not be asked last time ({told}); that changes nothing")
        } else {
            format!("{message}. DNS could not be asked last time ({told})")
        };
    }
    HostnameStatus {
        name: name.as_str().to_owned(),
        kind: HostnameKind::Custom,
        state,
        message,
        verification,
    }
}
