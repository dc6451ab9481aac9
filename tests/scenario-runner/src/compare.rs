//! Compares what was expected with what came.

mod statuses;

use std::collections::BTreeMap;
use std::fmt;

use policy::{Admission, ReportedVersion};
use resources::Timestamp;
use resources::condition::Condition;
use route_table::{Cidr, Fingerprint, Route};

use crate::expect::{Expect, Expected, ExpectedRun, RouteMembers, Routes};
use crate::shorthand::{ExpectedCondition, ExpectedEvent};
use crate::world::{Outcome, Reported, SeenEvent};

/// One thing that came out differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Which member, e.g. `statuses.homes/lake-house.url`.
    pub path: String,
    /// What was expected.
    pub expected: String,
    /// What came.
    pub came: String,
}

/// Gathers what is different.
struct Differences {
    found: Vec<Mismatch>,
    now: Timestamp,
}

const ABSENT: &str = "absent";
const NONE: &str = "none";

/// Everything in which the outcome is not what the step expects.
pub(crate) fn compare(
    expect: &Expect,
    outcome: &Outcome,
    reports: &BTreeMap<String, Reported>,
    now: Timestamp,
) -> Vec<Mismatch> {
    let Expect { routes, statuses, blocks, events, next_run } = expect;
    let mut differences = Differences { found: Vec::new(), now };
    if let Some(routes) = routes {
        differences.routes(routes, outcome, reports);
    }
    for (id, expected) in statuses {
        let path = format!("statuses.{id}");
        if let Some((expected, status)) =
            differences.presence(&path, expected, outcome.instances.get(id), shown)
        {
            differences.status(&path, expected, status);
        }
    }
    for (name, expected) in blocks {
        let path = format!("blocks.{name}");
        if let Some((expected, status)) =
            differences.presence(&path, expected, outcome.blocks.get(name), shown)
        {
            differences.block(&path, expected, status);
        }
    }
    if let (Some(expected), Some(came)) = (events, &outcome.events) {
        differences.events(expected, came);
    }
    if let (Some(expected), Some(came)) = (next_run, outcome.next_run) {
        let expected = match expected {
            ExpectedRun::None => None,
            ExpectedRun::At(when) => Some(when.from(now)),
        };
        let told = |run: Option<Timestamp>| run.map_or_else(|| NONE.to_owned(), |at| at.to_string());
        differences.same("nextRun", &told(expected), &told(came));
    }
    differences.found
}

/// A value as YAML, in one line where it is short.
fn shown(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn sorted<T: fmt::Display>(list: impl IntoIterator<Item = T>) -> String {
    let mut texts: Vec<String> = list.into_iter().map(|each| each.to_string()).collect();
    texts.sort();
    format!("[{}]", texts.join(", "))
}

/// Texts that stand for the same network or fingerprint look the same afterwards.
fn canonical<T: std::str::FromStr + fmt::Display>(text: &str) -> String {
    text.parse::<T>().map_or_else(|_| text.to_owned(), |read| read.to_string())
}

fn or_none(text: Option<&str>) -> String {
    text.unwrap_or(NONE).to_owned()
}

impl Differences {
    fn note(&mut self, path: impl Into<String>, expected: &dyn fmt::Display, came: &dyn fmt::Display) {
        self.found.push(Mismatch {
            path: path.into(),
            expected: expected.to_string(),
            came: came.to_string(),
        });
    }

    fn same(&mut self, path: impl Into<String>, expected: &dyn fmt::Display, came: &dyn fmt::Display) {
        let (expected, came) = (expected.to_string(), came.to_string());
        if expected != came {
            self.note(path, &expected, &came);
        }
    }

    /// Compares a member that may not be expected.
    fn member<T>(
        &mut self,
        path: &str,
        name: &str,
        expected: Option<&T>,
        told: impl Fn(&T) -> String,
        came: impl fmt::Display,
    ) {
        if let Some(expected) = expected {
            self.same(format!("{path}.{name}"), &told(expected), &came);
        }
    }

    /// Both, if it is there and shall be there.
    fn presence<'a, E, C>(
        &mut self,
        path: &str,
        expected: &'a Expected<E>,
        came: Option<&'a C>,
        shown: impl Fn(&C) -> String,
    ) -> Option<(&'a E, &'a C)> {
        match (expected, came) {
            (Expected::Absent, Some(came)) => self.note(path, &ABSENT, &shown(came)),
            (Expected::Is(_), None) => self.note(path, &"present", &ABSENT),
            (Expected::Absent, None) => {}
            (Expected::Is(expected), Some(came)) => return Some((expected, came)),
        }
        None
    }

    fn routes(&mut self, expected: &Routes, outcome: &Outcome, reports: &BTreeMap<String, Reported>) {
        for (id, expected) in &expected.named {
            let path = format!("routes.{id}");
            if let Some((expected, route)) =
                self.presence(&path, expected, outcome.routes.get(id), |route| format!("{route:?}"))
            {
                let reported = reports.get(id).and_then(|report| report.version.as_deref());
                self.route(&path, expected, route, reported);
            }
        }
        if !expected.others {
            for (id, route) in outcome.routes.iter().filter(|(id, _)| !expected.named.contains_key(*id)) {
                self.note(format!("routes.{id}"), &"absent (it is not named)", &sorted(&route.hostnames));
            }
        }
    }

    fn route(&mut self, path: &str, expected: &RouteMembers, route: &Route, reported: Option<&str>) {
        let RouteMembers {
            hostnames,
            served,
            refused_by,
            enabled,
            product,
            version,
            unknown_version,
            blocks,
            accepted_blocks,
            allow_networks,
            deny_networks,
            max_connections,
            new_connections_per_minute_per_client,
            tunnels,
            agent_keys,
        } = expected;
        let reported = reported.map(|text| ReportedVersion::read(text, route.product.scheme()));
        let admission = route.admit(reported.as_ref());
        let gets_through =
            route.refusal().is_none() && admission.is_admitted() && !route.hostnames.is_empty();
        let refusing = match &admission {
            Admission::Refused { blocked_by } => blocked_by.iter().map(|block| block.name.clone()).collect(),
            Admission::Admitted { .. } | Admission::RefusedUnknown { .. } => Vec::new(),
        };
        let list = |list: &Vec<String>| sorted(list);
        let networks = |list: &Vec<String>| sorted(list.iter().map(|text| canonical::<Cidr>(text)));
        let keys = |list: &Vec<String>| sorted(list.iter().map(|text| canonical::<Fingerprint>(text)));
        self.member(path, "hostnames", hostnames.as_ref(), list, sorted(&route.hostnames));
        self.member(path, "served", served.as_ref(), bool::to_string, gets_through);
        self.member(path, "refusedBy", refused_by.as_ref(), list, sorted(refusing));
        self.member(path, "enabled", enabled.as_ref(), bool::to_string, route.enabled);
        self.member(path, "product", product.as_ref(), String::clone, &route.product);
        let declared = or_none(route.declared_version.text());
        self.member(path, "version", version.as_ref(), String::clone, declared);
        let unknown = |unknown: &policy::UnknownVersion| format!("{unknown:?}");
        self.member(
            path,
            "unknownVersion",
            unknown_version.as_ref(),
            unknown,
            unknown(&route.unknown_version),
        );
        let compared = sorted(route.blocks.iter().map(|block| &block.name));
        self.member(path, "blocks", blocks.as_ref(), list, compared);
        self.member(path, "acceptedBlocks", accepted_blocks.as_ref(), list, sorted(&route.accepted_blocks));
        self.member(path, "allowNetworks", allow_networks.as_ref(), networks, sorted(&route.allow_networks));
        self.member(path, "denyNetworks", deny_networks.as_ref(), networks, sorted(&route.deny_networks));
        let limits = route.limits;
        self.member(path, "maxConnections", max_connections.as_ref(), u32::to_string, limits.max_connections);
        self.member(
            path,
            "newConnectionsPerMinutePerClient",
            new_connections_per_minute_per_client.as_ref(),
            u32::to_string,
            limits.new_connections_per_minute_per_client,
        );
        self.member(path, "tunnels", tunnels.as_ref(), u32::to_string, route.tunnels);
        let fingerprints = sorted(route.agent_keys.iter().map(|key| key.fingerprint));
        self.member(path, "agentKeys", agent_keys.as_ref(), keys, fingerprints);
    }

    fn conditions(&mut self, path: &str, expected: &BTreeMap<String, ExpectedCondition>, came: &[Condition]) {
        let told = |condition: &Condition| {
            format!("{:?} {}: {}", condition.status, condition.reason, condition.message)
        };
        for (kind, expected) in expected {
            let path = format!("{path}.conditions.{kind}");
            match (expected, came.iter().find(|condition| condition.kind == *kind)) {
                (ExpectedCondition::Absent, None) => {}
                (ExpectedCondition::Absent, Some(came)) => self.note(path, expected, &told(came)),
                (ExpectedCondition::Is { .. }, None) => self.note(path, expected, &ABSENT),
                (ExpectedCondition::Is { status, reason, message }, Some(came)) => {
                    let fits = *status == came.status
                        && *reason == came.reason
                        && message.as_ref().is_none_or(|part| part.is_in(&came.message));
                    if !fits {
                        self.note(path, expected, &told(came));
                    }
                }
            }
        }
        let mut kinds: Vec<&str> = came.iter().map(|condition| &*condition.kind).collect();
        kinds.sort_unstable();
        if let Some([twice, _]) = kinds.array_windows().find(|[first, second]| first == second) {
            self.note(format!("{path}.conditions.{twice}"), &"one", &"two of them");
        }
    }

    fn events(&mut self, expected: &[ExpectedEvent], came: &[SeenEvent]) {
        let fits = |expected: &ExpectedEvent, came: &SeenEvent| {
            expected.kind == came.kind
                && expected.about == came.about
                && expected.reason == came.reason
                && expected.message.as_ref().is_none_or(|part| part.is_in(&came.message))
        };
        let mut left: Vec<&SeenEvent> = came.iter().collect();
        for expected in expected {
            match left.iter().position(|came| fits(expected, came)) {
                Some(at) => {
                    left.remove(at);
                }
                None => self.note("events", expected, &"no such event"),
            }
        }
        for event in left {
            let SeenEvent { kind, about, reason, message } = event;
            self.note("events", &"no such event", &format!("{kind} {about} {reason}: {message}"));
        }
    }
}
