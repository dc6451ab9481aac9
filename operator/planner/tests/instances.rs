//! One instance from its first plan on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::{World, condition, is_served, says, served, status};
use resources::condition::Truth;
use serde_json::json;

#[test]
fn an_enabled_instance_is_served_under_its_random_name_and_its_label() {
    let mut world = World::new();
    world.instance("homes/lake", &json!({"enabled": true, "hostname": "lake-house"}));
    let plan = world.settle();
    let names = served(&plan, "homes/lake");
    assert_eq!(names[0], "lake-house.ui.example.com");
    assert_eq!(names[1].len(), 32 + ".ui.example.com".len());
    assert_eq!(status(&plan, "homes/lake").url.as_deref(), Some("https://lake-house.ui.example.com"));
    assert_eq!(says(&plan, "homes/lake", "Ready"), (Truth::True, "Serving".to_owned()));
    assert!(is_served(&plan, "homes/lake"));
}

#[test]
fn remote_access_is_off_until_asked_for() {
    let mut world = World::new();
    world.instance("homes/lake", &json!({}));
    let plan = world.settle();
    assert!(!plan.routes.get("homes/lake").unwrap().enabled);
    assert_eq!(says(&plan, "homes/lake", "Ready"), (Truth::True, "Disabled".to_owned()));
}

#[test]
fn nothing_is_ready_before_proxies_have_it() {
    let mut world = World::new();
    world.instance("homes/lake", &json!({"enabled": true}));
    let plan = world.plan();
    assert_eq!(says(&plan, "homes/lake", "Programmed"), (Truth::False, "NoProxies".to_owned()));
    assert_eq!(says(&plan, "homes/lake", "Ready").0, Truth::False);
    assert_eq!(condition(&plan, "homes/lake", "Reconciling").status, Truth::True);
    assert!(plan.published(plan.revision).is_some() && plan.published(plan.revision - 1).is_none());
}

/// Large plans are worked out by two threads.
#[test]
fn a_large_plan_is_what_many_small_ones_make() {
    let mut at_once = World::new();
    let mut by_and_by = World::new();
    by_and_by.block("hole", &json!({"versions": ["<=2021.1.4"], "reason": "traversal"}));
    at_once.inventory.blocks = by_and_by.inventory.blocks.clone();
    for at in 0..5_000 {
        let spec = json!({
            "enabled": at % 3 != 0, "hostname": format!("house-{}", at - at % 2), "version": format!("202{}.1.4", at % 6),
            "agentKeys": [format!("{:064x}", at - at % 5)],
        });
        by_and_by.instance(&format!("homes/i-{at:05}"), &spec);
        if at % 1_000 == 0 {
            by_and_by.plan();
        }
    }
    at_once.inventory.instances = by_and_by.inventory.instances.clone();
    let (large, small) = (at_once.plan(), by_and_by.plan());
    assert!(large.routes == small.routes);
    assert!(large.instances == small.instances);
    assert!(large.blocks == small.blocks);
}
