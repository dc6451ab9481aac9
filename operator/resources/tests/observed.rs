//! Objects as people write them, sense or no sense.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use resources::{
    Object, Observed, RemoteInstance, RemoteInstanceStatus, Unreadable, VersionBlock, VersionBlockStatus,
};
use serde_json::{Value, json};

fn instance(spec: &Value) -> Value {
    json!({
        "apiVersion": "latchkey.dev/v1alpha1",
        "kind": "RemoteInstance",
        "metadata": {"name": "lake-house", "namespace": "homes", "generation": 3},
        "spec": spec,
    })
}

fn block(spec: &Value) -> Value {
    json!({
        "apiVersion": "latchkey.dev/v1alpha1",
        "kind": "VersionBlock",
        "metadata": {"name": "core-2021-1-4"},
        "spec": spec,
    })
}

fn read_instance(value: Value) -> Result<Object<RemoteInstance>, Box<Unreadable>> {
    match Observed::read(value).unwrap() {
        Observed::Readable(instance) => Ok(instance),
        Observed::Unreadable(unreadable) => Err(Box::new(unreadable)),
    }
}

fn read_block(value: Value) -> Result<Object<VersionBlock>, Box<Unreadable>> {
    match Observed::read(value).unwrap() {
        Observed::Readable(block) => Ok(block),
        Observed::Unreadable(unreadable) => Err(Box::new(unreadable)),
    }
}

fn readable(value: Value) -> Object<RemoteInstance> {
    read_instance(value).unwrap()
}

fn unreadable(value: Value) -> Box<Unreadable> {
    read_instance(value).unwrap_err()
}

#[test]
fn an_empty_spec_is_off_and_has_every_default() {
    let spec = readable(instance(&json!({}))).spec;
    assert!(!spec.enabled);
    assert_eq!((spec.tunnels, spec.product.as_str()), (1, "home-assistant-core"));
    assert_eq!((spec.access.max_connections, spec.access.new_connections_per_minute_per_client), (512, 120));
}

#[test]
fn every_member_is_read_and_written_back_as_it_was() {
    let spec = json!({
        "installation": "west",
        "enabled": true,
        "hostname": "lake-house",
        "customDomains": ["home.example.com"],
        "product": "esphome",
        "version": "2026.11.1",
        "acceptedBlocks": [{"name": "core-2021-1-4", "reason": "isolated VLAN", "by": "ops@example.com"}],
        "agentKeys": ["ab".repeat(32)],
        "tunnels": 2,
        "acknowledgedCertificates": ["cd".repeat(32)],
        "access": {
            "allowNetworks": ["192.0.2.0/24", "2001:db8::/32"],
            "denyNetworks": ["192.0.2.7/32"],
            "maxConnections": 5,
            "newConnectionsPerMinutePerClient": 6,
        },
    });
    let read = readable(instance(&spec));
    assert_eq!(serde_json::to_value(&read.spec).unwrap(), spec);
}

#[test]
fn domains_and_fingerprints_are_read_into_one_form() {
    let key = vec!["AB"; 32].join(":");
    let spec = readable(instance(&json!({"customDomains": ["Home.Example.com."], "agentKeys": [key]}))).spec;
    assert_eq!(spec.custom_domains[0].as_str(), "home.example.com");
    assert_eq!(spec.agent_keys[0].to_string(), "ab".repeat(32));
}

#[test]
fn what_makes_no_sense_names_its_member() {
    let many = |count: usize| (0..count).map(|at| format!("d{at}.example.com")).collect::<Vec<_>>();
    for (spec, path, problem) in [
        (json!({"hostnme": "a"}), "spec.hostnme", "unknown field"),
        (json!({"enabled": "yes"}), "spec.enabled", "expected a boolean"),
        (json!({"installation": "West"}), "spec.installation", "lower-case"),
        (json!({"hostname": "lake.house"}), "spec.hostname", "no dots"),
        (json!({"hostname": "-a"}), "spec.hostname", "one label"),
        (json!({"hostname": ""}), "spec.hostname", "one label"),
        (json!({"hostname": "a".repeat(64)}), "spec.hostname", "at most 63"),
        (json!({"customDomains": ["a.example", "*.b.example"]}), "spec.customDomains[1]", "wildcards"),
        (json!({"customDomains": ["localhost"]}), "spec.customDomains[0]", "whole domain name"),
        (json!({"customDomains": ["a.example", "A.example."]}), "spec.customDomains[1]", "twice"),
        (json!({"customDomains": many(17)}), "spec.customDomains", "at most 16"),
        (json!({"product": "Home Assistant"}), "spec.product", "product name"),
        (json!({"version": 2023.10}), "spec.version", "quote it"),
        (json!({"version": 2023}), "spec.version", "quote it"),
        (json!({"version": ""}), "spec.version", "1 to 64"),
        (json!({"acceptedBlocks": [{"name": "a"}, {"name": "a"}]}), "spec.acceptedBlocks[1]", "twice"),
        (json!({"acceptedBlocks": [{"name": "A b"}]}), "spec.acceptedBlocks[0].name", "VersionBlock"),
        (json!({"acceptedBlocks": [{"reason": "x"}]}), "spec.acceptedBlocks[0]", "name"),
        (json!({"agentKeys": ["abcd"]}), "spec.agentKeys[0]", "64 hex digits"),
        (json!({"tunnels": 0}), "spec.tunnels", "1 to 64"),
        (json!({"access": {"denyNetworks": ["10.0.0.1/8"]}}), "spec.access.denyNetworks[0]", "10.0.0.0/8"),
        (json!({"access": {"maxConnections": 0}}), "spec.access.maxConnections", "1 to 100000"),
    ] {
        let found = unreadable(instance(&spec));
        assert_eq!(found.path, path, "{spec}");
        assert!(found.problem.contains(problem), "{spec}: {}", found.problem);
    }
}

#[test]
fn switching_off_is_seen_whatever_else_is_wrong() {
    let enabled = |spec: &Value| unreadable(instance(spec)).enabled;
    assert_eq!(enabled(&json!({"enabled": false, "tunnels": 0})), Some(false));
    assert_eq!(enabled(&json!({"enabled": true, "tunnels": "many"})), Some(true));
    assert_eq!(enabled(&json!({"enabled": "false"})), None);
    assert_eq!(enabled(&json!({"tunnels": 0})), None);
}

#[test]
fn metadata_of_an_unreadable_object_is_kept() {
    let observed = Observed::<RemoteInstance>::read(instance(&json!({"tunnels": 0}))).unwrap();
    assert!(matches!(observed, Observed::Unreadable(_)));
    assert_eq!(observed.about().generation, Some(3));
}

#[test]
fn what_is_wrong_at_length_is_told_briefly() {
    for spec in [json!({"hostname": "\u{e9}".repeat(1_000_000)}), json!({"tunnels": "many ".repeat(100_000)})]
    {
        let nonsense = unreadable(instance(&spec));
        assert!(
            nonsense.problem.chars().count() <= 515 && nonsense.problem.ends_with("..."),
            "{}",
            nonsense.problem
        );
    }
}

#[test]
fn without_a_name_there_is_nothing_to_speak_of() {
    let mut value = instance(&json!({"tunnels": 0}));
    value["metadata"] = json!({"namespace": "homes"});
    assert!(Observed::<RemoteInstance>::read(value).unwrap_err().contains("metadata.name"));
    assert!(Observed::<RemoteInstance>::read(json!({"metadata": {"name": 7}})).is_err());
    assert!(Observed::<RemoteInstance>::read(json!("text")).is_err());
}

#[test]
fn a_status_from_another_time_hides_nothing() {
    let mut value = instance(&json!({"enabled": true}));
    value["status"] = json!({"hostnames": [{"name": "a.example", "kind": "Borrowed", "state": "Serving"}]});
    let read = readable(value.clone());
    assert!(read.spec.enabled);
    assert_eq!(read.status, None);
    value["spec"]["tunnels"] = json!(0);
    assert_eq!(unreadable(value).path, "spec.tunnels");
}

#[test]
fn a_status_is_written_in_the_same_bytes_every_time() {
    let status = r#"{"observedGeneration":3,"url":"https://lake-house.ui.example.com","hostnames":[{"name":"lake-house.ui.example.com","kind":"Assigned","state":"Serving"},{"name":"home.example.com","kind":"Custom","state":"PendingVerification","message":"make the record","verification":{"type":"TXT","name":"_latchkey.home.example.com","value":"x"}}],"version":{"effective":"2026.11.1","source":"Reported"},"blockedBy":["core-2021-1-4"],"tunnel":{"connected":true,"since":"2026-11-21T09:00:00Z","agentVersion":"0.1.0","protocolVersion":2},"certificate":{"fingerprintSha256":"ab","names":["home.example.com"],"issuer":"us","notAfter":"2027-01-01T00:00:00Z","acmeAccountUri":"https://ca.example/1"},"conditions":[{"type":"Ready","status":"True","reason":"Serving","message":"ok","lastTransitionTime":"2026-11-21T09:00:00Z","observedGeneration":3}]}"#;
    let read: RemoteInstanceStatus = serde_json::from_str(status).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), status);
    assert_eq!(
        serde_json::to_string(&RemoteInstanceStatus::default()).unwrap(),
        "{}",
        "nothing known, nothing said"
    );
    assert_eq!(
        serde_json::to_string(&VersionBlockStatus::default()).unwrap(),
        r#"{"matched":0,"blocked":0,"accepted":0}"#
    );
}

#[test]
fn a_block_tells_ranges_that_can_be_read_from_those_that_cannot() {
    let value = block(&json!({"versions": ["<=2021.1.4", "~=2023.1", "2023.9.0"], "reason": "hole"}));
    let block = read_block(value).unwrap();
    let (ranges, unreadable) = block.spec.ranges();
    assert_eq!(
        ranges.iter().map(policy::VersionRange::as_str).collect::<Vec<_>>(),
        ["<=2021.1.4", "2023.9.0"]
    );
    assert_eq!(unreadable.len(), 1);
    assert_eq!(unreadable[0].0, 1);
    assert!(unreadable[0].1.to_string().contains("~="));
}

#[test]
fn ranges_are_read_in_the_scheme_of_the_product() {
    let spec = json!({"product": "grafana", "versions": ["<1.2.3-rc.1"], "reason": "hole"});
    let block = read_block(block(&spec)).unwrap();
    let (ranges, unreadable) = block.spec.ranges();
    assert!(unreadable.is_empty());
    let version = policy::ProductVersion::parse("1.2.3-beta.1", policy::VersionScheme::Semantic).unwrap();
    assert!(ranges[0].contains(&version));
}

#[test]
fn a_block_that_makes_no_sense_names_its_member() {
    for (spec, path, problem) in [
        (json!({"versions": [], "reason": "x"}), "spec.versions", "at least one"),
        (json!({"versions": ["<1", 2023.10], "reason": "x"}), "spec.versions[1]", "quote it"),
        (json!({"versions": ["<1", "<1"], "reason": "x"}), "spec.versions[1]", "twice"),
        (json!({"versions": ["<1"]}), "spec", "reason"),
        (json!({"versions": ["<1"], "reason": ""}), "spec.reason", "1 to 2048"),
        (json!({"versions": ["<1"], "reason": "x", "moreInfo": "example.com"}), "spec.moreInfo", "https://"),
        (json!({"versions": ["<1"], "reason": "x", "action": "Kill"}), "spec.action", "Kill"),
    ] {
        let found = read_block(block(&spec)).unwrap_err();
        assert_eq!(found.path, path, "{spec}");
        assert!(found.problem.contains(problem), "{spec}: {}", found.problem);
    }
}
