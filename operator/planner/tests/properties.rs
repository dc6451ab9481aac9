//! What holds for every world, whatever happens in it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{World, id, is_served, says};
use imbl::OrdSet;
use planner::{
    Applied, CertificateFacts, Plan, Previous, Proof, ProofAnswer, Report, Timestamp, Tunnel, plan,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use resources::Observed;
use resources::condition::Truth;
use route_table::{Fingerprint, HostName};
use serde_json::{Value, json};

const INSTANCES: [&str; 5] = ["farms/barn", "homes/a", "homes/b", "homes/c", "homes/lake"];
const BLOCKS: [&str; 3] = ["crumb", "hole", "leak"];
const DOMAINS: [&str; 3] = ["one.example", "two.example", "sub.ui.example.com"];
const VERSIONS: [&str; 5] = ["2020.12.1", "2021.1.3", "2023.9.0b3", "2026.11.1", "latest"];

/// Something that happens.
#[derive(Debug, Clone)]
enum Happening {
    Write { name: &'static str, spec: Value, created: Option<i64>, enrolled: String },
    Break { name: &'static str, enabled: Option<bool> },
    Delete { name: &'static str },
    WriteBlock { name: &'static str, spec: Value },
    BreakBlock { name: &'static str },
    DeleteBlock { name: &'static str },
    Dns { name: &'static str, domain: &'static str, answer: Option<ProofAnswer>, trouble: bool },
    Report { name: &'static str, version: Option<&'static str>, connected: bool, strange: bool },
    Forget { name: &'static str },
    Apply { behind: Option<u64>, ready: u32 },
    Wait { seconds: i64 },
    FeedBack,
    Settings { spec: Value },
}

fn spec() -> impl Strategy<Value = Value> {
    let label = prop::option::of(select(vec!["lake", "hill", "connect", "LAKE"]));
    let domains = subsequence(DOMAINS.to_vec(), 0..=2);
    let keys = subsequence(vec![1_u8, 2, 3], 0..=2);
    let accepted = subsequence(BLOCKS.to_vec(), 0..=1);
    let rest = (any::<bool>(), prop::option::of(select(VERSIONS.to_vec())), 0..8_u8, 0..8_u8);
    (label, domains, keys, accepted, rest).prop_map(|(label, domains, keys, accepted, rest)| {
        let (enabled, version, installation, product) = rest;
        let keys: Vec<String> = keys.iter().map(|byte| format!("{byte:02x}").repeat(32)).collect();
        let accepted: Vec<Value> = accepted.iter().map(|name| json!({"name": name})).collect();
        let mut spec = json!({
            "enabled": enabled, "customDomains": domains, "agentKeys": keys, "acceptedBlocks": accepted,
        });
        // Upper case is refused by the object's own rules, so now and then an object makes no sense.
        if let Some(label) = label {
            spec["hostname"] = json!(label);
        }
        if let Some(version) = version {
            spec["version"] = json!(version);
        }
        if installation == 0 {
            spec["installation"] = json!("other");
        }
        if product == 0 {
            spec["product"] = json!("grafana");
        }
        spec
    })
}

fn happening() -> impl Strategy<Value = Happening> {
    let name = || select(INSTANCES.to_vec());
    let block = || select(BLOCKS.to_vec());
    let enrolled =
        select(vec!["", "", "0404040404040404040404040404040404040404040404040404040404040404", "nonsense"]);
    let range = select(vec!["<=2021.1.4", ">=2021.1, <2021.2", "<2024", "nonsense"]);
    let action = select(vec!["Block", "Warn"]);
    let answers = vec![ProofAnswer::Txt, ProofAnswer::Cname, ProofAnswer::Missing];
    let settings = (select(vec![0, 90]), any::<bool>(), any::<bool>(), 0..6_u8);
    prop_oneof![
        8 => (name(), spec(), prop::option::of(0..3_i64), enrolled).prop_map(|(name, spec, created, enrolled)| {
            Happening::Write { name, spec, created, enrolled: enrolled.to_owned() }
        }),
        1 => (name(), prop::option::of(any::<bool>())).prop_map(|(name, enabled)| Happening::Break { name, enabled }),
        2 => name().prop_map(|name| Happening::Delete { name }),
        2 => (block(), range, action).prop_map(|(name, range, action)| Happening::WriteBlock {
            name,
            spec: json!({"versions": [range, "2020.1"], "reason": name, "action": action}),
        }),
        1 => block().prop_map(|name| Happening::BreakBlock { name }),
        1 => block().prop_map(|name| Happening::DeleteBlock { name }),
        6 => (name(), select(DOMAINS.to_vec()), prop::option::of(select(answers)), any::<bool>())
            .prop_map(|(name, domain, answer, trouble)| Happening::Dns { name, domain, answer, trouble }),
        4 => (name(), prop::option::of(select(VERSIONS.to_vec())), any::<bool>(), any::<bool>())
            .prop_map(|(name, version, connected, strange)| Happening::Report { name, version, connected, strange }),
        1 => name().prop_map(|name| Happening::Forget { name }),
        4 => (prop::option::of(0..4_u64), 0..3_u32).prop_map(|(behind, ready)| Happening::Apply { behind, ready }),
        4 => select(vec![1, 59, 60, 600, 86_400, 90 * 86_400]).prop_map(|seconds| Happening::Wait { seconds }),
        3 => Just(Happening::FeedBack),
        1 => settings.prop_map(|(days, block, default, namespaces)| Happening::Settings {
            spec: json!({
                "quarantineDays": days,
                "unknownVersion": if block { "Block" } else { "Allow" },
                "default": default || namespaces > 1,
                "namespaces": if namespaces == 0 { json!(["homes"]) } else { json!([]) },
                "domain": if namespaces == 1 { "example.org" } else { "ui.example.com" },
            }),
        }),
    ]
}

fn happen(world: &mut World, happening: &Happening, last: Option<&Plan>) {
    let now = Timestamp(world.now);
    let facts = &mut world.inventory.facts;
    match happening {
        Happening::Write { name, spec, created, enrolled } => {
            let mut metadata = json!({"annotations": {"latchkey.dev/agent-keys": enrolled}});
            if let Some(created) = created {
                metadata["creationTimestamp"] = json!(Timestamp(*created).to_string());
            }
            world.instance_with(name, spec, &metadata);
        }
        Happening::Break { name, enabled } => {
            world.instance(name, &json!({"enabled": enabled, "tunnels": "many"}));
        }
        Happening::Delete { name } => drop(world.inventory.instances.remove(&id(name))),
        Happening::WriteBlock { name, spec } => world.block(name, spec),
        Happening::BreakBlock { name } => world.block(name, &json!({"versions": "all"})),
        Happening::DeleteBlock { name } => drop(world.inventory.blocks.remove(*name)),
        Happening::Dns { name, domain, answer, trouble } => {
            let key = (domain.parse().unwrap(), id(name));
            let known = facts.proofs.get(&key).cloned();
            let known = known.unwrap_or(Proof { answer: None, missing_since: None, trouble: None });
            let answered = answer.map_or(known.clone(), |answer| Proof {
                answer: Some((answer, now)),
                missing_since: (answer == ProofAnswer::Missing).then(|| known.missing_since.unwrap_or(now)),
                trouble: None,
            });
            let trouble = trouble.then(|| "SERVFAIL".to_owned());
            facts.proofs.insert(key, Proof { trouble, ..answered });
        }
        Happening::Report { name, version, connected, strange } => {
            let strange: OrdSet<Fingerprint> =
                strange.then(|| Fingerprint::from_bytes([9; 32])).into_iter().collect();
            let report = Report {
                tunnel: Some(Tunnel {
                    connected: *connected,
                    since: now,
                    agent_version: Some("0.1.0".to_owned()),
                    protocol_version: Some(2),
                }),
                version: version.map(str::to_owned),
                certificate: (*connected).then(|| CertificateFacts {
                    fingerprint: Fingerprint::from_bytes([8; 32]),
                    names: vec!["lake.ui.example.com".to_owned()],
                    issuer: None,
                    not_after: Some(now),
                    acme_account_uri: None,
                    strange,
                }),
            };
            facts.reports.insert(id(name), Arc::new(report));
        }
        Happening::Forget { name } => drop(facts.reports.remove(&id(name))),
        Happening::Apply { behind, ready } => {
            let latest = last.map(|plan| plan.revision);
            facts.applied = Applied {
                ready_proxies: *ready,
                revision: latest.and_then(|latest| behind.and_then(|behind| latest.checked_sub(behind))),
            };
        }
        Happening::Wait { seconds } => world.now += seconds,
        Happening::FeedBack => {
            if let Some(plan) = last {
                facts.released = plan.released.clone();
            }
        }
        Happening::Settings { spec } => world.settings(spec),
    }
}

/// Everything a plan says, as bytes.
fn bytes(plan: &Plan) -> String {
    serde_json::to_string(plan).unwrap()
}

/// What must be so of every plan.
fn check(world: &World, plan: &Plan, changed_in: &BTreeMap<String, u64>) {
    let settings = &world.inventory.settings;
    plan.table(&settings.spec.domain).unwrap_or_else(|error| panic!("no proxy would take it: {error}"));
    let applied = world.inventory.facts.applied;
    for (id, status) in &plan.instances {
        let name = id.as_str();
        let (programmed, _) = says(plan, name, "Programmed");
        let (ready, reason) = says(plan, name, "Ready");
        if programmed == Truth::True {
            assert!(applied.ready_proxies > 0, "{name}: programmed into no proxy");
            let at = changed_in[name];
            assert!(
                applied.revision.is_some_and(|revision| revision >= at),
                "{name}: programmed before {at}"
            );
        }
        if ready == Truth::True {
            assert_eq!(programmed, Truth::True, "{name}");
            assert_eq!(is_served(plan, name), reason == "Serving", "{name}");
        }
        if !status.blocked_by.is_empty() || says(plan, name, "VersionAllowed").0 == Truth::False {
            assert!(!is_served(plan, name), "{name} is blocked and served");
        }
        if let Some(Observed::Readable(object)) = world.inventory.instances.get(id).map(|object| &**object)
            && !object.spec.enabled
        {
            assert!(!is_served(plan, name), "{name} is disabled and served");
        }
        if let Some(route) = plan.routes.get(id) {
            let told: BTreeSet<&str> = status
                .hostnames
                .iter()
                .filter(|each| each.state == resources::remote_instance::HostnameState::Serving)
                .map(|each| each.name.as_str())
                .collect();
            assert_eq!(told, route.hostnames.iter().map(HostName::as_str).collect(), "{name}");
        }
    }
    assert!(plan.routes.keys().all(|id| plan.instances.contains_key(id)), "a route without a status");
    assert!(plan.next_run.is_none_or(|at| at.0 > world.now), "to run again in the past");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(happenings in prop::collection::vec(happening(), 1..40)) {
        let mut world = World::new();
        let mut last: Option<Plan> = None;
        let mut changed_in: BTreeMap<String, u64> = BTreeMap::new();
        for happening in &happenings {
            happen(&mut world, happening, last.as_ref());
            let now = Timestamp(world.now);
            let (first, previous) = plan(&world.inventory, &world.previous, now);

            // Sparing work changes nothing.
            let (whole, _) = plan(&world.inventory, &world.previous.decisions_alone(), now);
            prop_assert_eq!(bytes(&first), bytes(&whole));

            for (id, route) in &first.routes {
                let same = last.as_ref().and_then(|last| last.routes.get(id)).is_some_and(|before| before == route);
                if !same {
                    changed_in.insert(id.to_string(), first.revision);
                }
            }
            let routes_differ = last.as_ref().is_none_or(|last| last.routes != first.routes);

            // Blocks first and the rest after comes to the same.
            let early = world.previous.blocks_first(&world.inventory.settings, &world.inventory.blocks);
            let is_about_blocks =
                matches!(happening, Happening::WriteBlock { .. } | Happening::BreakBlock { .. } | Happening::DeleteBlock { .. });
            prop_assert_eq!(early.is_some(), is_about_blocks && last.is_some() && routes_differ);
            if let Some(early) = early {
                prop_assert_eq!((early.revision, &early.routes), (first.revision, &first.routes));
                let (late, _) = plan(&world.inventory, &early.previous, now);
                prop_assert_eq!(bytes(&late), bytes(&first));
            }
            let before = last.as_ref().map_or(0, |last| last.revision);
            prop_assert_eq!(first.revision, before + u64::from(routes_differ));
            check(&world, &first, &changed_in);

            // Planning twice changes nothing.
            let (second, _) = plan(&world.inventory, &previous, now);
            prop_assert!(second.events.is_empty(), "{:?}", second.events);
            prop_assert_eq!(bytes(&second), bytes(&Plan { events: Vec::new(), ..first.clone() }));
            let (third, _) = plan(&world.inventory, &previous.decisions_alone(), now);
            prop_assert_eq!(bytes(&second), bytes(&third));

            world.previous = previous;
            last = Some(first);
        }
    }

    #[test]
    fn the_order_in_which_objects_come_does_not_matter(
        specs in prop::collection::vec((spec(), prop::option::of(0..3_i64)), INSTANCES.len()),
        order in Just((0..INSTANCES.len()).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let build = |order: &[usize]| {
            let mut world = World::new();
            for at in order {
                let (spec, created) = &specs[*at];
                let happening = Happening::Write {
                    name: INSTANCES[*at], spec: spec.clone(), created: *created, enrolled: String::new(),
                };
                happen(&mut world, &happening, None);
            }
            bytes(&world.plan())
        };
        prop_assert_eq!(build(&order), build(&[0, 1, 2, 3, 4]));
    }

    #[test]
    fn a_restart_moves_no_name_and_repeats_no_event(happenings in prop::collection::vec(happening(), 1..40)) {
        let mut world = World::new();
        let mut last = None;
        for happening in &happenings {
            // What makes no sense loses its route by a restart, and who held a shared key is not remembered.
            let told = match happening {
                Happening::Break { .. } | Happening::BreakBlock { .. } => continue,
                // So does what is in force of a block while one of its ranges makes no sense.
                Happening::WriteBlock { spec, .. } if spec["versions"][0] == "nonsense" => continue,
                Happening::Write { name, spec, created, .. } => {
                    let mut spec = spec.clone();
                    spec["agentKeys"] = json!([]);
                    if spec["hostname"] == "LAKE" || spec["hostname"] == "connect" {
                        spec["hostname"] = json!("lake");
                    }
                    Happening::Write { name, spec, created: *created, enrolled: String::new() }
                }
                told => told.clone(),
            };
            happen(&mut world, &told, last.as_ref());
            last = Some(world.plan());
        }
        let before = match last {
            Some(last) => last,
            None => world.plan(),
        };
        for (id, status) in &before.instances {
            let object = world.inventory.instances.get(id).unwrap();
            let Observed::Readable(object) = &**object else { continue };
            let mut object = object.clone();
            object.status = Some(Box::new((**status).clone()));
            world.inventory.instances.insert(id.clone(), Arc::new(Observed::Readable(object)));
        }
        for (name, status) in &before.blocks {
            let object = world.inventory.blocks.get(name).unwrap();
            let Observed::Readable(object) = &**object else { continue };
            let mut object = object.clone();
            object.status = Some(Box::new((**status).clone()));
            world.inventory.blocks.insert(name.clone(), Arc::new(Observed::Readable(object)));
        }
        world.inventory.facts.proofs.clear();
        world.previous = Previous::restore(&world.inventory);
        let after = world.plan();
        for (id, route) in &before.routes {
            prop_assert_eq!(&route.hostnames, &after.routes.get(id).unwrap().hostnames);
        }
        prop_assert!(after.events.is_empty(), "{:?}", after.events);
        prop_assert!(after.revision > world.inventory.facts.applied.revision.unwrap_or_default());
    }
}
