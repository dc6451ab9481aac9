//! The board of an installation: what `/status` says and `latchkey status` shows. Pure: what every part knows goes in.

use std::collections::BTreeMap;
use std::sync::Arc;

use board::{Board, Counts, OperatorPart, Phase, ProxyRow, Role, Roll, Row, Selection, is_ready, ready};
use imbl::OrdMap;
use planner::Report;
use route_table::InstanceId;

use crate::names::Names;
use crate::overview::Overview;
use crate::publish::ProxyState;
use crate::workload::pods::Pods;
use crate::workload::roll_shell::{RollPhase, RollState};

/// What the parts of an operator know.
pub(crate) struct Known<'a> {
    pub(crate) names: &'a Names,
    /// The name of this process.
    pub(crate) identity: &'a str,
    /// Who leads, where this process follows.
    pub(crate) leader: Option<&'a str>,
    pub(crate) overview: &'a Overview,
    /// The installation's domain, if its settings could be read.
    pub(crate) domain: String,
    /// What is wrong with settings or objects.
    pub(crate) problems: Vec<String>,
    pub(crate) proxies_wanted: Option<u32>,
    pub(crate) pods: &'a Pods,
    /// Proxies that are attached.
    pub(crate) attached: &'a [ProxyState],
    pub(crate) roll: Option<RollState>,
    pub(crate) reports: OrdMap<InstanceId, Arc<Report>>,
}

/// The board, with the instances that were asked for.
pub(crate) fn board(known: Known<'_>, selection: &Selection) -> Board {
    let (instances, counts, next) = instances(&known, selection);
    let Known { names, identity, overview, .. } = known;
    let role = match overview.term {
        Some(term) => Role::Leader { term },
        None => Role::Follower { leader: known.leader.map(str::to_owned) },
    };
    let proxies = proxies(known.pods, known.attached);
    let mut problems = known.problems;
    problems.extend(overview.problem.clone().filter(|problem| !problems.contains(problem)));
    Board {
        domain: known.domain,
        revision: overview.revision.unwrap_or_default(),
        instances,
        problems,
        operator: Some(OperatorPart {
            installation: names.installation.clone(),
            namespace: names.namespace.clone(),
            name: identity.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role,
            ready: overview.is_ready(),
            told: overview.told(),
            proxies_wanted: known.proxies_wanted,
            proxies,
            roll: known.roll.map(roll),
            counts,
            next,
        }),
        ..Board::default()
    }
}

/// The rows that were asked for, all of them counted, and after which one more come.
fn instances(known: &Known<'_>, selection: &Selection) -> (Vec<Row>, Counts, Option<String>) {
    let mut counts = Counts::default();
    let mut rows: Vec<Row> = Vec::new();
    let mut next = None;
    for (id, status) in &known.overview.instances {
        let tunnel = known.reports.get(id).and_then(|report| report.tunnel.as_ref());
        let connected = tunnel.is_some_and(|tunnel| tunnel.connected);
        let is_ready = is_ready(status);
        counts.instances += 1;
        counts.ready += u64::from(is_ready);
        counts.connected += u64::from(connected);
        if !is_ready {
            let reason = ready(status).map_or("Unknown", |ready| &ready.reason);
            match counts.not_ready.get_mut(reason) {
                Some(count) => *count += 1,
                None => {
                    counts.not_ready.insert(reason.to_owned(), 1);
                }
            }
        }
        let name = id.as_str();
        let is_wanted = match &selection.instance {
            Some(instance) => name == instance,
            None => selection.all || !is_ready,
        };
        // The first after a full page is enough to know that there are more.
        let is_after = || selection.after.as_ref().is_none_or(|after| name > after.as_str());
        if next.is_some() || !is_wanted || !is_after() {
            continue;
        }
        if rows.len() >= selection.limit {
            next = rows.last().map(|row| row.instance.clone());
            continue;
        }
        rows.push(Row { instance: name.to_owned(), connected, status: (**status).clone(), target: None });
    }
    (rows, counts, next)
}

/// Pods and who is attached are two views of the same proxies; one may be missing in either.
fn proxies(pods: &Pods, attached: &[ProxyState]) -> Vec<ProxyRow> {
    let mut rows: BTreeMap<&str, ProxyRow> = BTreeMap::new();
    for pod in pods.values() {
        let ready = pod.ready && !pod.is_ending;
        let row =
            ProxyRow { name: pod.name.clone(), ready, trouble: pod.trouble.clone(), ..ProxyRow::default() };
        rows.insert(&pod.name, row);
    }
    for proxy in attached {
        let is_pod = rows.contains_key(&*proxy.name);
        let row = rows.entry(&proxy.name).or_default();
        row.name = proxy.name.to_string();
        row.ready = proxy.ready && (row.ready || !is_pod);
        row.version = Some(proxy.version.clone());
        row.revision = proxy.position.map(|position| position.revision);
        row.tunnels = proxy.tunnels;
        row.lag_seconds = proxy.lag.as_secs_f64();
    }
    rows.into_values().collect()
}

fn roll(state: RollState) -> Roll {
    let phase = match state.phase {
        RollPhase::Idle => Phase::Idle,
        RollPhase::Rolling => Phase::Rolling,
        RollPhase::Paused => Phase::Paused,
    };
    Roll { phase, reason: state.reason }
}

#[cfg(test)]
mod tests {
    use operator_link::Position;
    use planner::{Ordered, Timestamp, Tunnel};
    use resources::{Condition, RemoteInstanceStatus, condition::Truth};

    use super::*;
    use crate::workload::pods::ProxyPod;

    fn status(ready: bool, reason: &str) -> Arc<RemoteInstanceStatus> {
        let condition = Condition {
            kind: "Ready".to_owned().into(),
            status: if ready { Truth::True } else { Truth::False },
            reason: reason.to_owned().into(),
            message: String::new().into(),
            last_transition_time: "2026-11-21T09:00:00Z".parse().unwrap(),
            observed_generation: Some(1),
        };
        Arc::new(RemoteInstanceStatus {
            conditions: vec![condition].into(),
            ..RemoteInstanceStatus::default()
        })
    }

    /// Ten instances, of which every second one is blocked, and the first is connected.
    fn overview(term: Option<u64>) -> Overview {
        let instance = |number: u32| {
            let id: InstanceId = format!("homes/house-{number}").parse().unwrap();
            let ready = number.is_multiple_of(2);
            (id, status(ready, if ready { "Serving" } else { "Blocked" }))
        };
        let instances: Ordered<_, _> = (0..10).map(instance).collect();
        Overview { term, synced: true, revision: Some(7), instances, ..Overview::default() }
    }

    fn told(overview: &Overview, pods: &Pods, attached: &[ProxyState], selection: &Selection) -> Board {
        let tunnel =
            Tunnel { connected: true, since: Timestamp(0), agent_version: None, protocol_version: None };
        let report = Report { tunnel: Some(tunnel), version: None, certificate: None };
        let known = Known {
            names: &Names { namespace: "latchkey".to_owned(), installation: "default".to_owned() },
            identity: "operator-0",
            leader: Some("operator-1"),
            overview,
            domain: "ui.example.com".to_owned(),
            problems: Vec::new(),
            proxies_wanted: Some(2),
            pods,
            attached,
            roll: Some(RollState { phase: RollPhase::Paused, reason: "it crashes".to_owned() }),
            reports: [("homes/house-0".parse().unwrap(), Arc::new(report))].into_iter().collect(),
        };
        board(known, selection)
    }

    fn rows(board: &Board) -> Vec<&str> {
        board.instances.iter().map(|row| row.instance.trim_start_matches("homes/house-")).collect()
    }

    #[test]
    fn all_are_counted_and_those_that_are_asked_for_are_told() {
        let overview = overview(Some(3));
        let told = |selection: Selection| told(&overview, &Pods::new(), &[], &selection);
        let short = told(Selection::default());
        assert_eq!(rows(&short), ["1", "3", "5", "7", "9"], "those that are not ready");
        let part = short.operator.as_ref().unwrap();
        assert_eq!(part.role, Role::Leader { term: 3 });
        let counts = &part.counts;
        assert_eq!((counts.instances, counts.ready, counts.connected), (10, 5, 1));
        assert_eq!(counts.not_ready, [("Blocked".to_owned(), 5)].into());
        assert_eq!((part.next.as_deref(), short.revision), (None, 7));

        let page = told(Selection { limit: 2, ..Selection::default() });
        assert_eq!(rows(&page), ["1", "3"]);
        let next = page.operator.unwrap().next;
        assert_eq!(next.as_deref(), Some("homes/house-3"));
        let last = told(Selection { limit: 3, after: next, ..Selection::default() });
        assert_eq!(
            (rows(&last), last.operator.as_ref().unwrap().next.as_deref()),
            (vec!["5", "7", "9"], None)
        );
        assert_eq!(told(Selection { all: true, ..Selection::default() }).instances.len(), 10);
        let one = told(Selection { instance: Some("homes/house-0".to_owned()), ..Selection::default() });
        assert_eq!(rows(&one), ["0"]);
        assert!(one.instances[0].connected && !short.instances[0].connected);
    }

    #[test]
    fn proxies_are_known_by_their_pods_and_by_the_link() {
        let pod = |ordinal: u32, ready| ProxyPod {
            name: format!("proxy-{ordinal}"),
            uid: String::new(),
            ordinal,
            revision: String::new(),
            ready,
            is_ending: false,
            trouble: (!ready).then(|| "CrashLoopBackOff".to_owned()),
            node: None,
        };
        let pods: Pods = [pod(0, true), pod(1, false)].map(|pod| (pod.name.clone(), pod)).into();
        let attached = |name: &str, ready| ProxyState {
            name: name.into(),
            version: "0.1.0".to_owned(),
            incarnation: 1,
            position: Some(Position { term: 3, revision: 6 }),
            ready,
            tunnels: 4,
            attached_since: Timestamp(0),
            lag: std::time::Duration::from_secs(2),
        };
        let attached = [attached("proxy-0", true), attached("elsewhere", true)];
        let board = told(&overview(Some(3)), &pods, &attached, &Selection::default());
        let part = board.operator.unwrap();
        let shown: Vec<_> = part
            .proxies
            .iter()
            .map(|row| (row.name.as_str(), row.ready, row.revision, row.tunnels, row.trouble.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("elsewhere", true, Some(6), 4, None),
                ("proxy-0", true, Some(6), 4, None),
                ("proxy-1", false, None, 0, Some("CrashLoopBackOff")),
            ]
        );
        assert_eq!(part.roll.map(|roll| roll.phase), Some(Phase::Paused));
    }

    #[test]
    fn a_follower_says_who_leads() {
        let board = told(&Overview::default(), &Pods::new(), &[], &Selection::default());
        let part = board.operator.unwrap();
        assert_eq!(part.role, Role::Follower { leader: Some("operator-1".to_owned()) });
        assert!(!part.is_well());
    }
}
