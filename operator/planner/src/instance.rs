//! Decides about one instance, once it is clear who has which name and key.

use std::sync::Arc;

use policy::Admission;
use resources::remote_instance::VersionSource;
use resources::{RemoteInstanceStatus, Timestamp};
use route_table::{Fingerprint, Route};

use crate::blocks::{Blocks, Judge, Judged, Tally};
use crate::conditions::{AlikeConditions, Known};
use crate::hostname_status::hostnames;
use crate::inventory::{Applied, Report, Settings};
use crate::names::{NameMaker, url};
use crate::outcome::{DomainOutcome, LabelOutcome, Outcome};
use crate::previous::Entry;
use crate::status::{certificate, instance_status};
use crate::tunnel_status::tell;
use crate::wish::Wish;

/// What every instance of a plan is decided with.
pub(crate) struct Circumstances<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) names: &'a NameMaker,
    pub(crate) blocks: &'a Blocks,
    pub(crate) applied: Applied,
    /// The revision that brings a route if it is another than before.
    pub(crate) next_revision: u64,
    pub(crate) now: Timestamp,
}

/// What was decided about its names and keys.
pub(crate) struct Shares {
    pub(crate) label: Option<LabelOutcome>,
    pub(crate) domains: Vec<DomainOutcome>,
    pub(crate) foreign_keys: Vec<(Fingerprint, route_table::InstanceId)>,
}

/// Decides about an instance.
pub(crate) fn decide(
    given: &Circumstances<'_>,
    judge: &mut Judge<'_>,
    alike: &mut AlikeConditions,
    wish: &Arc<Wish>,
    shares: Shares,
    reported: Option<&Arc<Report>>,
    before: Option<&Entry>,
) -> Entry {
    let Shares { label, domains, foreign_keys } = shares;
    let report = remembered(reported, wish, before);
    let (judged, version_source) = version(judge, wish, &report);
    let unknown = given.settings.spec.unknown_version;
    let accepted = accepted(wish);
    let admission = if wish.sense.is_some() {
        judged.admission(&accepted, unknown)
    } else {
        // Nothing is known of it, so there is nothing to block.
        Admission::Admitted { warned_by: Vec::new(), accepted: Vec::new() }
    };
    let outcome = Outcome { label, domains, foreign_keys, judged, version_source, admission };
    let route = route(given, judge, wish, &outcome, accepted);
    let (route, route_revision) = same_or_new(route, before, given.next_revision);

    let told_before = before.and_then(|before| before.status.tunnel.as_ref());
    let tunnel_now = reported.and_then(|report| report.tunnel.as_ref());
    let told = tell(told_before, before.and_then(|before| before.missed_since), tunnel_now, given.now);

    let verification = (!outcome.domains.is_empty()).then(|| given.names.verification_value(&wish.id));
    let known = Known {
        wish,
        route: route.as_ref().map(|route| (route, route_revision)),
        applied: given.applied,
        hostnames: hostnames(wish, &outcome, verification.as_deref()),
        tunnel: told.tunnel,
        strange: strange(wish, &report),
        outcome: &outcome,
    };
    let shown = match &outcome.label {
        Some(LabelOutcome::Held(name)) => name,
        _ => &wish.random,
    };
    let url = wish.sense.is_some().then(|| url(given.settings, shown));
    let facts = report.certificate.as_ref().map(certificate);
    let status_before = before.map(|before| &*before.status);
    let conditions = alike.share(known.conditions(status_before, given.now), status_before);
    let status = instance_status(known, conditions, url, facts);
    let waiting = match outcome.label {
        Some(LabelOutcome::Quarantined { until, .. }) => Some(until),
        _ => None,
    };
    Entry {
        wish: Some(Arc::clone(wish)),
        report,
        missed_since: told.missed_since,
        route,
        route_revision,
        status: same_status(status, before),
        judged: wish.sense.is_some().then_some(outcome.judged),
        look_again: [told.look_again, waiting].into_iter().flatten().min(),
    }
}

/// Most strange certificates remembered of an instance: as many as its owner can acknowledge.
const MAX_STRANGE: usize = route_table::MAX_AGENT_KEYS_PER_ROUTE;

/// What is reported now, and where that says nothing, what was reported last. A proxy that starts knows nobody's
/// version or certificate until agents come back; that must not make a blocked version unknown or end an alarm. Nor
/// does a report that mentions a strange certificate no more: only a person's word ends an alarm.
fn remembered(reported: Option<&Arc<Report>>, wish: &Wish, before: Option<&Entry>) -> Arc<Report> {
    let Some(before) = before else { return reported.cloned().unwrap_or_default() };
    let Some(now) = reported else { return without_foreign_version(&before.report, wish, before) };
    let blank = |version: &Option<String>| version.as_ref().is_none_or(|text| text.trim().is_empty());
    let alarms = before.report.certificate.as_ref().filter(|known| !known.strange.is_empty());
    if !blank(&now.version) && now.certificate.is_some() && alarms.is_none() {
        return Arc::clone(now);
    }
    let known = without_foreign_version(&before.report, wish, before);
    let version = if blank(&now.version) { known.version.clone() } else { now.version.clone() };
    let mut certificate = now.certificate.as_ref().or(known.certificate.as_ref()).cloned();
    if let (Some(certificate), Some(alarms)) = (&mut certificate, alarms) {
        for strange in &alarms.strange {
            if certificate.strange.len() < MAX_STRANGE {
                certificate.strange.insert(*strange);
            }
        }
    }
    let merged = Report { tunnel: now.tunnel.clone(), version, certificate };
    if merged == **now { Arc::clone(now) } else { Arc::new(merged) }
}

/// A version says nothing about another product.
fn without_foreign_version(known: &Arc<Report>, wish: &Wish, before: &Entry) -> Arc<Report> {
    let product = |wish: &Wish| wish.spec().map(|spec| spec.product.clone());
    let other = before.wish.as_ref().is_some_and(|before| product(before) != product(wish));
    if other && known.version.is_some() {
        Arc::new(Report { version: None, ..(**known).clone() })
    } else {
        Arc::clone(known)
    }
}

/// The version that counts: the reported one, else the declared one.
fn version<'a>(
    judge: &mut Judge<'_>,
    wish: &'a Wish,
    report: &'a Report,
) -> (Arc<Judged>, Option<VersionSource>) {
    let Some(spec) = wish.spec() else { return (judge.judge(&policy::Product::default(), ""), None) };
    let told = |text: &'a Option<String>| text.as_deref().filter(|text| !text.trim().is_empty());
    let (text, source) = match (told(&report.version), told(&spec.version)) {
        (Some(reported), _) => (reported, Some(VersionSource::Reported)),
        (None, Some(declared)) => (declared, Some(VersionSource::Declared)),
        (None, None) => ("", None),
    };
    (judge.judge(&spec.product, text), source)
}

/// Names of the blocks it accepts, sorted: their order means nothing.
fn accepted(wish: &Wish) -> Vec<String> {
    let accepted = wish.spec().map(|spec| spec.accepted_blocks.as_slice()).unwrap_or_default();
    let mut names: Vec<String> = accepted.iter().map(|block| block.name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn route(
    given: &Circumstances<'_>,
    judge: &mut Judge<'_>,
    wish: &Wish,
    outcome: &Outcome,
    accepted: Vec<String>,
) -> Option<Route> {
    let spec = wish.spec()?;
    let declared = judge.judge(&spec.product, spec.version.as_deref().unwrap_or_default());
    let unknown = given.settings.spec.unknown_version;
    crate::route::route(wish, outcome, given.blocks.list(&spec.product), &declared.version, accepted, unknown)
}

/// A route that is what it was stays the very same, with the revision that brought it. A list of blocks that stayed the
/// same is the same list ([`Blocks::read`]).
fn same_or_new(route: Option<Route>, before: Option<&Entry>, next: u64) -> (Option<Route>, u64) {
    let known = before.and_then(|before| Some((before.route.as_ref()?, before.route_revision)));
    match (route, known) {
        (Some(route), Some((known, revision)))
            if Arc::ptr_eq(&known.blocks, &route.blocks) && *known == route =>
        {
            (Some(known.clone()), revision)
        }
        (Some(route), _) => (Some(route), next),
        (None, _) => (None, 0),
    }
}

fn same_status(status: RemoteInstanceStatus, before: Option<&Entry>) -> Arc<RemoteInstanceStatus> {
    match before {
        Some(before) if *before.status == status => Arc::clone(&before.status),
        _ => Arc::new(status),
    }
}

/// Certificates nobody has acknowledged.
fn strange(wish: &Wish, report: &Report) -> Option<Vec<Fingerprint>> {
    let seen = &report.certificate.as_ref()?.strange;
    let acknowledged = wish.spec().map(|spec| spec.acknowledged_certificates.as_slice()).unwrap_or_default();
    Some(seen.iter().filter(|each| !acknowledged.contains(each)).copied().collect())
}

impl Entry {
    /// Adds this instance to the tallies of the blocks that name its version, or takes it out again.
    pub(crate) fn count(&self, tallies: &mut [Tally], blocks: &Blocks, by: i64) {
        let (Some(wish), Some(judged)) = (&self.wish, &self.judged) else { return };
        let accepted = wish.spec().map(|spec| spec.accepted_blocks.as_slice()).unwrap_or_default();
        for place in &judged.named_by {
            let (Some(tally), Some(name)) = (tallies.get_mut(*place), blocks.name(*place)) else { continue };
            tally.matched += by;
            if accepted.iter().any(|each| *each.name == **name) {
                tally.accepted += by;
            } else if wish.enabled {
                tally.blocked += by;
            }
        }
    }
}
