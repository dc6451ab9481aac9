//! What is said of an instance and of a version block, row by row.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{World, condition, id, is_served, says, status};
use planner::{Event, EventKind, Plan, Report};
use resources::condition::Truth;
use resources::remote_instance::VersionSource;
use serde_json::{Value, json};

const LAKE: &str = "homes/lake";

fn hole() -> Value {
    json!({"versions": ["<=2021.1.4"], "reason": "Directory traversal", "moreInfo": "https://example.com/a"})
}

fn report(version: &str) -> Arc<Report> {
    Arc::new(Report { version: Some(version.to_owned()), ..Report::default() })
}

fn reasons(plan: &Plan) -> Vec<(EventKind, &str)> {
    plan.events.iter().map(|Event { kind, reason, .. }| (*kind, reason.as_str())).collect()
}

/// The rows of the table above `Wish`.
#[test]
fn an_object_that_makes_no_sense_row_by_row() {
    let nonsense = |enabled: Value| json!({"enabled": enabled, "tunnels": "many"});
    // (last sense, what it says of enabled now, route, enabled in it)
    for (sense, now, expected) in [
        (None, json!(true), None),
        (Some(true), json!(false), Some(false)),
        (Some(true), json!(true), Some(true)),
        (Some(true), json!("perhaps"), Some(true)),
        (Some(false), json!(true), Some(false)),
    ] {
        let mut world = World::new();
        if let Some(enabled) = sense {
            world.instance(LAKE, &json!({"enabled": enabled, "access": {"denyNetworks": ["192.0.2.0/24"]}}));
            world.settle();
        }
        world.instance(LAKE, &nonsense(now.clone()));
        let plan = world.settle();
        let route = plan.routes.get(LAKE);
        assert_eq!(route.map(|route| route.enabled), expected, "{sense:?} {now}");
        assert!(route.is_none_or(|route| route.deny_networks.len() == 1), "its networks stay");
        assert_eq!(says(&plan, LAKE, "Ready"), (Truth::False, "InvalidSpec".to_owned()));
        assert_eq!(says(&plan, LAKE, "Stalled").0, Truth::True);
        assert!(condition(&plan, LAKE, "Ready").message.contains("spec.tunnels") || now == json!("perhaps"));
    }
}

#[test]
fn a_new_block_and_a_removed_key_reach_an_object_that_makes_no_sense() {
    let mut world = World::new();
    let key = json!({"annotations": {"latchkey.dev/agent-keys": "01".repeat(32)}});
    world.instance_with(LAKE, &json!({"enabled": true, "version": "2020.1.0"}), &key);
    let plan = world.settle();
    assert!(is_served(&plan, LAKE));
    world.instance(LAKE, &json!({"enabled": true, "tunnels": "many"}));
    world.block("hole", &hole());
    let plan = world.settle();
    assert!(!is_served(&plan, LAKE));
    assert!(plan.routes.get(LAKE).unwrap().agent_keys.is_empty());
    world.delete(LAKE);
    assert!(world.settle().routes.is_empty());
}

#[test]
fn what_is_reported_wins_and_stays_when_a_proxy_forgets_it() {
    let mut world = World::new();
    world.block("hole", &hole());
    world.instance(LAKE, &json!({"enabled": true, "version": "2026.11.1"}));
    assert!(is_served(&world.settle(), LAKE));
    world.inventory.facts.reports.insert(id(LAKE), report("2020.1.0"));
    let plan = world.settle();
    assert!(!is_served(&plan, LAKE));
    let version = status(&plan, LAKE).version.as_ref().unwrap();
    assert_eq!((version.effective.as_str(), version.source), ("2020.1.0", VersionSource::Reported));
    assert_eq!(status(&plan, LAKE).blocked_by, ["hole"]);
    let message = &condition(&plan, LAKE, "VersionAllowed").message;
    for part in
        ["2020.1.0", "Directory traversal", "https://example.com/a", "acceptedBlocks", "spec.version says"]
    {
        assert!(message.contains(part), "{part} in {message}");
    }
    world.inventory.facts.reports.clear();
    assert!(!is_served(&world.settle(), LAKE));
}

/// The rows of the table above `version_allowed`.
#[test]
fn versions_row_by_row() {
    let bare = json!({"enabled": true});
    let accepting = json!({"enabled": true, "acceptedBlocks": [{"name": "hole"}]});
    // (spec, reported, action, unknown versions, truth, reason)
    for (spec, reported, action, unknown, truth, reason) in [
        (&bare, Some("2020.1.0"), "Block", "Allow", Truth::False, "Blocked"),
        (&bare, Some("latest"), "Block", "Block", Truth::False, "UnknownVersion"),
        (&bare, None, "Block", "Block", Truth::False, "UnknownVersion"),
        (&bare, Some("2020.1.0"), "Warn", "Allow", Truth::True, "Warned"),
        (&accepting, Some("2020.1.0"), "Block", "Allow", Truth::True, "Accepted"),
        (&bare, None, "Block", "Allow", Truth::True, "UnknownVersion"),
        (&bare, Some("latest"), "Block", "Allow", Truth::True, "UnknownVersion"),
        (&bare, Some("2026.11.1"), "Block", "Allow", Truth::True, "Allowed"),
        (
            &json!({"enabled": true, "version": "2026.1"}),
            Some("2026.11.1"),
            "Block",
            "Allow",
            Truth::True,
            "DeclaredVersionDiffers",
        ),
        (
            &json!({"enabled": true, "version": "2026.11.1.0"}),
            Some("2026.11.1"),
            "Block",
            "Allow",
            Truth::True,
            "Allowed",
        ),
    ] {
        let mut world = World::new();
        world.settings(&json!({"unknownVersion": unknown}));
        let mut block = hole();
        block["action"] = json!(action);
        world.block("hole", &block);
        world.instance(LAKE, spec);
        world.inventory.facts.reports.extend(reported.map(|version| (id(LAKE), report(version))));
        let plan = world.settle();
        assert_eq!(says(&plan, LAKE, "VersionAllowed"), (truth, reason.to_owned()), "{reported:?}");
        assert_eq!(is_served(&plan, LAKE), truth == Truth::True, "{reported:?}");
    }
}

#[test]
fn a_new_block_arms_again_whoever_accepted_the_old_one() {
    let mut world = World::new();
    world.block("hole", &hole());
    world.instance(
        LAKE,
        &json!({"enabled": true, "version": "2020.1.0", "acceptedBlocks": [{"name": "hole"}]}),
    );
    assert!(is_served(&world.settle(), LAKE));
    world.block("leak", &hole());
    let plan = world.settle();
    assert_eq!(status(&plan, LAKE).blocked_by, ["leak"]);
    assert!(reasons(&plan).contains(&(EventKind::Warning, "Blocked")));
    world.inventory.blocks.remove("leak");
    assert!(reasons(&world.settle()).contains(&(EventKind::Normal, "Accepted")));
}

#[test]
fn a_block_counts_whom_it_names_keeps_out_and_who_accepted() {
    let mut world = World::new();
    let old = |more: &Value| {
        let mut spec = json!({"enabled": true, "version": "2020.1.0"});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    world.instance("homes/a", &old(&json!({})));
    world.instance("homes/b", &old(&json!({"acceptedBlocks": [{"name": "hole"}]})));
    world.instance("homes/c", &old(&json!({"enabled": false})));
    world.instance("homes/d", &json!({"enabled": true, "version": "2026.1.0"}));
    world.block("hole", &hole());
    let counts = |plan: &Plan| {
        let status = plan.blocks.get("hole").unwrap();
        (status.matched, status.blocked, status.accepted)
    };
    assert_eq!(counts(&world.settle()), (3, 1, 1));
    world.delete("homes/a");
    assert_eq!(counts(&world.settle()), (2, 0, 1));
    world.instance("homes/d", &old(&json!({})));
    assert_eq!(counts(&world.settle()), (3, 1, 1));
    let mut warning = hole();
    warning["action"] = json!("Warn");
    world.block("hole", &warning);
    let plan = world.settle();
    let ready = &plan.blocks.get("hole").unwrap().conditions[0];
    assert!(ready.message.contains("would disconnect 1 instances"), "{}", ready.message);
}

#[test]
fn a_block_that_turns_unreadable_stays_in_force() {
    let mut world = World::new();
    world.instance(LAKE, &json!({"enabled": true, "version": "2020.1.0"}));
    world.block("hole", &hole());
    world.settle();
    world.block("hole", &json!({"versions": "all of them"}));
    let plan = world.settle();
    assert!(!is_served(&plan, LAKE));
    let ready = &plan.blocks.get("hole").unwrap().conditions[0];
    assert_eq!((ready.status, &*ready.reason), (Truth::False, "InvalidSpec"));
    assert!(reasons(&plan).contains(&(EventKind::Warning, "InvalidSpec")));
}

#[test]
fn a_transition_moves_its_time_and_only_its_time() {
    let mut world = World::new();
    world.block("hole", &hole());
    world.instance(LAKE, &json!({"enabled": true, "version": "2026.1.0"}));
    let before = world.settle();
    world.now += 100;
    world.instance_with(LAKE, &json!({"enabled": true, "version": "2020.1.0"}), &json!({"generation": 2}));
    let after = world.settle();
    let time = |plan: &Plan, kind| condition(plan, LAKE, kind).last_transition_time;
    assert_eq!(time(&after, "VersionAllowed").0, world.now);
    assert_eq!(time(&after, "HostnamesResolved"), time(&before, "HostnamesResolved"));
    assert_eq!(status(&after, LAKE).observed_generation, Some(2));
    assert_eq!(condition(&after, LAKE, "HostnamesResolved").observed_generation, Some(2));
}

#[test]
fn programmed_row_by_row() {
    let mut world = World::new();
    world.instance(LAKE, &json!({"enabled": true}));
    let plan = world.plan();
    for (ready_proxies, revision, truth, reason) in [
        (0, Some(plan.revision), Truth::False, "NoProxies"),
        (1, None, Truth::False, "NotApplied"),
        (1, Some(plan.revision - 1), Truth::False, "NotApplied"),
        (1, Some(plan.revision), Truth::True, "Applied"),
        (2, Some(plan.revision + 5), Truth::True, "Applied"),
    ] {
        world.inventory.facts.applied = planner::Applied { ready_proxies, revision };
        assert_eq!(says(&world.plan(), LAKE, "Programmed"), (truth, reason.to_owned()), "{revision:?}");
    }
}
