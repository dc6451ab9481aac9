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
