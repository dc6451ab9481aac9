//! What was shut by somebody who meant it stays shut until somebody means otherwise.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{World, id, is_served, says};
use planner::{CertificateFacts, Report};
use resources::condition::Truth;
use route_table::Fingerprint;
use serde_json::json;

#[test]
fn an_object_without_sense_does_not_switch_on_what_another_switched_off() {
    let mut world = World::new();
    world.instance("homes/lake", &json!({"enabled": true}));
    assert!(is_served(&world.settle(), "homes/lake"));
    world.instance("homes/lake", &json!({"enabled": false, "tunnels": "many"}));
    assert!(!is_served(&world.settle(), "homes/lake"));
    world.instance("homes/lake", &json!({"enabled": true, "tunnels": "many"}));
    assert!(!is_served(&world.settle(), "homes/lake"));
    world.instance("homes/lake", &json!({"enabled": true, "tunnels": 2}));
    assert!(is_served(&world.settle(), "homes/lake"));
}

#[test]
fn a_range_that_becomes_nonsense_keeps_out_whom_it_kept_out() {
    let mut world = World::new();
    world.instance("homes/lake", &json!({"enabled": true, "version": "2021.1.3"}));
    world.instance("homes/hill", &json!({"enabled": true, "version": "2022.5.0"}));
    world.block("hole", &json!({"versions": ["<=2021.1.4"], "reason": "traversal"}));
    let plan = world.settle();
    assert_eq!((is_served(&plan, "homes/lake"), is_served(&plan, "homes/hill")), (false, true));
    // What can be read is in force besides.
    world.block("hole", &json!({"versions": ["<= tea time", "2022.5.0"], "reason": "traversal"}));
    let plan = world.settle();
    assert_eq!((is_served(&plan, "homes/lake"), is_served(&plan, "homes/hill")), (false, false));
    world.block("hole", &json!({"versions": ["2022.5.0"], "reason": "traversal"}));
    let plan = world.settle();
    assert_eq!((is_served(&plan, "homes/lake"), is_served(&plan, "homes/hill")), (true, false));
}

#[test]
fn an_alarm_does_not_end_because_a_report_does_not_repeat_it() {
    let strange = Fingerprint::from_bytes([9; 32]);
    let report = |strange: &[Fingerprint]| {
        let certificate = CertificateFacts {
            fingerprint: Fingerprint::from_bytes([1; 32]),
            names: Vec::new(),
            issuer: None,
            not_after: None,
            acme_account_uri: None,
            strange: strange.iter().copied().collect(),
        };
        let version = Some("2026.11.1".to_owned());
        Arc::new(Report { tunnel: None, version, certificate: Some(certificate) })
    };
    let mut world = World::new();
    world.instance("homes/lake", &json!({"enabled": true}));
    for reported in [&[strange][..], &[], &[]] {
        world.inventory.facts.reports.insert(id("homes/lake"), report(reported));
        let plan = world.settle();
        assert_eq!(says(&plan, "homes/lake", "CertificateTrusted").0, Truth::False);
    }
    world
        .instance("homes/lake", &json!({"enabled": true, "acknowledgedCertificates": [strange.to_string()]}));
    assert_eq!(says(&world.settle(), "homes/lake", "CertificateTrusted").0, Truth::True);
}
