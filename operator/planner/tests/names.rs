//! Who has which name: labels, quarantine, custom domains, agent keys.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{START, World, id, says, served, status};
use planner::{Previous, Proof, ProofAnswer, Timestamp};
use resources::Observed;
use resources::condition::Truth;
use resources::remote_instance::HostnameState;
use serde_json::{Value, json};

const DAY: i64 = 86_400;

fn lake() -> Value {
    json!({"enabled": true, "hostname": "lake"})
}

fn has_lake(world: &mut World, name: &str) -> bool {
    let plan = world.settle();
    served(&plan, name).contains(&"lake.ui.example.com".to_owned())
}

fn created(at: i64) -> Value {
    json!({"creationTimestamp": Timestamp(at).to_string()})
}

#[test]
fn what_another_installation_holds_is_not_given_up_by_a_restart_of_ours() {
    let mut theirs = World::new();
    theirs.instance("homes/theirs", &json!({"enabled": true, "hostname": "lake-house"}));
    let told = serde_json::to_value(status(&theirs.settle(), "homes/theirs")).unwrap();
    let mut world = World::new();
    let stranger = json!({
        "apiVersion": "latchkey.dev/v1alpha1", "kind": "RemoteInstance",
        "metadata": {"namespace": "homes", "name": "theirs", "generation": 1},
        "spec": {"enabled": true, "hostname": "lake-house", "installation": "other"},
        "status": told,
    });
    let stranger = Arc::new(Observed::read(stranger).unwrap());
    world.inventory.instances.insert(id("homes/theirs"), stranger);
    world.previous = Previous::restore(&world.inventory);
    world.instance("homes/ours", &json!({"enabled": true, "hostname": "lake-house"}));
    let plan = world.settle();
    assert!(plan.released.is_empty(), "{:?}", plan.released);
    assert!(served(&plan, "homes/ours").contains(&"lake-house.ui.example.com".to_owned()));
}

#[test]
fn the_holder_keeps_its_label_against_an_older_object() {
    let mut world = World::new();
    world.instance_with("homes/b", &lake(), &created(2_000));
    assert!(has_lake(&mut world, "homes/b"));
    world.instance_with("homes/a", &lake(), &created(1_000));
    assert!(has_lake(&mut world, "homes/b"));
    let plan = world.settle();
    assert!(!served(&plan, "homes/a").contains(&"lake.ui.example.com".to_owned()));
    let told = &status(&plan, "homes/a").hostnames[0];
    assert_eq!(told.state, HostnameState::Conflict);
    assert!(told.message.contains("homes/b"), "{}", told.message);
    assert_eq!(says(&plan, "homes/a", "Ready"), (Truth::False, "NameConflict".to_owned()));
    assert_eq!(says(&plan, "homes/a", "Stalled").0, Truth::True);
}

#[test]
fn without_a_holder_the_older_wins_then_the_one_with_an_age_then_the_name() {
    for (first, second, winner) in [
        (created(2_000), created(1_000), "homes/b"),
        (created(1_000), created(1_000), "homes/a"),
        (json!({}), created(1_000), "homes/b"),
        (json!({}), json!({}), "homes/a"),
    ] {
        let mut world = World::new();
        world.instance_with("homes/a", &lake(), &first);
        world.instance_with("homes/b", &lake(), &second);
        assert!(has_lake(&mut world, winner), "{first} {second}");
    }
}

#[test]
fn a_disabled_instance_keeps_its_label() {
    let mut world = World::new();
    world.instance("homes/b", &lake());
    assert!(has_lake(&mut world, "homes/b"));
    world.instance("homes/b", &json!({"enabled": false, "hostname": "lake"}));
    world.instance("homes/a", &lake());
    assert!(!has_lake(&mut world, "homes/a"));
}

#[test]
fn a_label_given_up_goes_to_nobody_else_until_the_quarantine_ends() {
    let mut world = World::new();
    world.instance("homes/b", &lake());
    assert!(has_lake(&mut world, "homes/b"));
    world.instance("homes/a", &lake());
    world.delete("homes/b");
    let plan = world.settle();
    assert_eq!(plan.released.get("lake").unwrap().by, id("homes/b"));
    let told = &status(&plan, "homes/a").hostnames[0];
    assert!(told.message.contains("homes/b gave this name up"), "{}", told.message);
    assert_eq!(plan.next_run, Some(Timestamp(START + 90 * DAY)));
    world.now = START + 90 * DAY - 1;
    assert!(!has_lake(&mut world, "homes/a"));
    world.now = START + 90 * DAY;
    assert!(has_lake(&mut world, "homes/a"));
    let plan = world.settle();
    assert_eq!((plan.released.len(), plan.next_run), (0, None));
}

#[test]
fn who_gave_a_label_up_may_take_it_again() {
    let mut world = World::new();
    world.instance("homes/b", &lake());
    world.settle();
    world.instance("homes/b", &json!({"enabled": true}));
    world.instance("homes/a", &lake());
    assert!(!has_lake(&mut world, "homes/a"));
    world.instance("homes/b", &lake());
    assert!(has_lake(&mut world, "homes/b"));
    assert!(world.settle().released.is_empty());
}

#[test]
fn without_a_quarantine_a_label_goes_on_at_once_and_a_person_may_end_one() {
    let mut world = World::new();
    world.settings(&json!({"quarantineDays": 0}));
    world.instance("homes/b", &lake());
    world.settle();
    world.instance("homes/a", &lake());
    world.delete("homes/b");
    assert!(has_lake(&mut world, "homes/a"));

    let mut world = World::new();
    world.instance("homes/b", &lake());
    world.settle();
    world.instance("homes/a", &lake());
    world.delete("homes/b");
    assert!(!has_lake(&mut world, "homes/a"));
    world.inventory.facts.released.clear();
    assert!(has_lake(&mut world, "homes/a"));
}

fn dns(world: &mut World, name: &str, answer: ProofAnswer, missing_since: Option<i64>) {
    let key = ("home.example".parse().unwrap(), id(name));
    let answer = Some((answer, Timestamp(world.now)));
    let missing_since = missing_since.map(Timestamp);
    world.inventory.facts.proofs.insert(key, Proof { answer, missing_since, trouble: None });
}

fn state(world: &mut World, name: &str) -> (HostnameState, String) {
    let plan = world.settle();
    let told = status(&plan, name).hostnames.last().unwrap().clone();
    let routed = served(&plan, name).contains(&"home.example".to_owned());
    assert_eq!(routed, told.state == HostnameState::Serving);
    (told.state, told.message)
}

#[test]
fn a_custom_domain_is_served_once_proven_and_until_dns_denies_it_for_ten_minutes() {
    use HostnameState::{PendingVerification, Serving};
    let mut world = World::new();
    world.instance("homes/a", &json!({"enabled": true, "customDomains": ["HOME.example."]}));
    let (pending, message) = state(&mut world, "homes/a");
    assert_eq!(pending, PendingVerification);
    assert!(message.contains("TXT record _latchkey.home.example with the value latchkey-verification="));
    assert!(message.contains("CNAME record to ") && message.contains(".ui.example.com"));
    dns(&mut world, "homes/a", ProofAnswer::Cname, None);
    assert_eq!(state(&mut world, "homes/a").0, Serving);
    dns(&mut world, "homes/a", ProofAnswer::Missing, Some(START));
    let (doubted, message) = state(&mut world, "homes/a");
    assert_eq!(doubted, Serving);
    assert!(message.contains("will be withdrawn"), "{message}");
    world.now = START + 5_000;
    assert_eq!(state(&mut world, "homes/a").0, Serving, "time alone withdraws nothing");
    dns(&mut world, "homes/a", ProofAnswer::Missing, Some(START));
    assert_eq!(state(&mut world, "homes/a").0, PendingVerification);
}

#[test]
fn trouble_with_dns_withdraws_nothing() {
    let mut world = World::new();
    world.instance("homes/a", &json!({"enabled": true, "customDomains": ["home.example"]}));
    dns(&mut world, "homes/a", ProofAnswer::Txt, None);
    assert_eq!(state(&mut world, "homes/a").0, HostnameState::Serving);
    let key = ("home.example".parse().unwrap(), id("homes/a"));
    let trouble = Some("SERVFAIL".to_owned());
    world.inventory.facts.proofs.insert(key, Proof { answer: None, missing_since: None, trouble });
    let (state, message) = state(&mut world, "homes/a");
    assert_eq!(state, HostnameState::Serving);
    assert!(message.contains("SERVFAIL"), "{message}");
}

#[test]
fn only_a_proven_instance_gets_a_domain_and_the_next_one_when_the_proof_is_gone() {
    use HostnameState::{Conflict, PendingVerification, Serving};
    let mut world = World::new();
    let spec = json!({"enabled": true, "customDomains": ["home.example"]});
    world.instance_with("homes/a", &spec, &created(1_000));
    world.instance_with("homes/b", &spec, &created(2_000));
    assert_eq!(state(&mut world, "homes/a").0, PendingVerification);
    dns(&mut world, "homes/b", ProofAnswer::Txt, None);
    assert_eq!(state(&mut world, "homes/b").0, Serving);
    let (older, message) = state(&mut world, "homes/a");
    assert_eq!(older, Conflict);
    assert!(message.contains("homes/b"), "{message}");
    dns(&mut world, "homes/a", ProofAnswer::Txt, None);
    assert_eq!(state(&mut world, "homes/a").0, Conflict, "the holder keeps it");
    dns(&mut world, "homes/b", ProofAnswer::Missing, Some(START - 600));
    assert_eq!(state(&mut world, "homes/a").0, Serving);
    assert_eq!(state(&mut world, "homes/b").0, Conflict);
}

#[test]
fn a_domain_below_the_installations_own_is_refused() {
    let mut world = World::new();
    world.instance("homes/a", &json!({"enabled": true, "customDomains": ["bank.ui.example.com"]}));
    let plan = world.settle();
    let told = status(&plan, "homes/a").hostnames.last().unwrap();
    assert_eq!(told.state, HostnameState::Conflict);
    assert!(told.message.contains("spec.hostname"), "{}", told.message);
    assert_eq!(served(&plan, "homes/a").len(), 1);
}

#[test]
fn one_agent_key_is_one_instances() {
    let mut world = World::new();
    let key = "01".repeat(32);
    let spec = json!({"enabled": true, "agentKeys": [key]});
    world.instance("homes/b", &spec);
    world.settle();
    world.instance("homes/a", &json!({"enabled": true, "agentKeys": [key, "02".repeat(32)]}));
    let plan = world.settle();
    assert_eq!(plan.routes.get("homes/b").unwrap().agent_keys.len(), 1);
    assert_eq!(plan.routes.get("homes/a").unwrap().agent_keys.len(), 1);
    assert_eq!(says(&plan, "homes/a", "Ready"), (Truth::False, "AgentKeyConflict".to_owned()));
    world.delete("homes/b");
    let plan = world.settle();
    assert_eq!(plan.routes.get("homes/a").unwrap().agent_keys.len(), 2);
    assert_eq!(says(&plan, "homes/a", "Ready").0, Truth::True);
}

#[test]
fn a_label_moves_when_the_installation_stops_serving_the_namespace() {
    let mut world = World::new();
    world.instance("farms/barn", &lake());
    assert!(has_lake(&mut world, "farms/barn"));
    world.settings(&json!({"namespaces": ["homes"]}));
    let plan = world.settle();
    assert!(plan.routes.is_empty() && plan.instances.is_empty());
    assert!(plan.released.contains_key("lake"));
}
