//! Routes files as people and programs write them.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fmt::Write as _;
use std::sync::Arc;

use policy::{Admission, BlockAction, ReportedVersion, UnknownVersion, VersionScheme};
use route_table::{Limits, MAX_FILE_BYTES, Route, RouteRefusal, RouteTable, TableError};

const FULL: &str = r#"
revision: 7
domain: UI.example.com.
routes:
- id: homes/lake-house
  generation: 3
  hostnames: [Lake-House.ui.example.com., home.example.com]
  enabled: true
  product: home-assistant-core
  version: "2026.11.1"
  unknownVersion: Block
  blocks:
  - {name: core-2021-1-4, versions: ["<=2021.1.4"], reason: Directory traversal, moreInfo: "https://example.com/a", action: Block}
  - {name: slow, versions: ["2026.11.1"], reason: Slow, action: Warn}
  acceptedBlocks: [other]
  allowNetworks: [192.0.2.0/24]
  denyNetworks: [192.0.2.7]
  limits: {maxConnections: 8, newConnectionsPerMinutePerClient: 9}
  tunnels: 2
  agentKeys:
  - "0101010101010101010101010101010101010101010101010101010101010101"
  - {fingerprint: "0202020202020202020202020202020202020202020202020202020202020202", generation: 2}
  parkVisitors: false
  priority: -5
"#;

fn only_route(table: &RouteTable) -> &Route {
    assert_eq!(table.len(), 1);
    table.routes().next().unwrap()
}

/// A file of one route with these lines in it.
fn with_lines(lines: &str) -> String {
    format!("routes:\n- id: homes/lake\n  hostnames: [lake.example]\n{lines}")
}

fn message(text: &str) -> String {
    RouteTable::parse(text).unwrap_err().to_string()
}

#[test]
fn every_member_arrives() {
    let table = RouteTable::parse(FULL).unwrap();
    assert_eq!(table.revision, 7);
    assert_eq!(table.domain.as_ref().unwrap().as_str(), "ui.example.com");
    let route = only_route(&table);
    assert_eq!(route.id.as_str(), "homes/lake-house");
    assert_eq!(route.generation, 3);
    assert_eq!(
        route.hostnames.iter().map(route_table::HostName::as_str).collect::<Vec<_>>(),
        ["lake-house.ui.example.com", "home.example.com"]
    );
    assert!(route.enabled);
    assert_eq!(route.product.as_str(), "home-assistant-core");
    assert_eq!(route.declared_version, ReportedVersion::read("2026.11.1", VersionScheme::Calendar));
    assert_eq!(route.unknown_version, UnknownVersion::Block);
    assert_eq!(route.blocks.len(), 2);
    assert_eq!(&*route.blocks[0].name, "core-2021-1-4");
    assert_eq!(route.blocks[0].more_info.as_deref(), Some("https://example.com/a"));
    assert_eq!(route.blocks[1].action, BlockAction::Warn);
    assert_eq!(route.accepted_blocks, ["other"]);
    assert_eq!(route.allow_networks[0].to_string(), "192.0.2.0/24");
    assert_eq!(route.deny_networks[0].to_string(), "192.0.2.7/32");
    assert_eq!(route.limits, Limits { max_connections: 8, new_connections_per_minute_per_client: 9 });
    assert_eq!(route.tunnels, 2);
    assert_eq!(route.agent_keys.iter().map(|key| key.generation).collect::<Vec<_>>(), [3, 2]);
    assert!(!route.park_visitors);
    assert_eq!(route.priority, -5);
    assert_eq!(route.refusal(), None);
    match route.admit(None) {
        Admission::Admitted { warned_by, .. } => assert_eq!(warned_by[0].name, "slow"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn json_says_the_same_as_yaml() {
    let json = serde_json::json!({
        "revision": 7, "domain": "ui.example.com",
        "routes": [{
            "id": "homes/lake-house", "generation": 3,
            "hostnames": ["lake-house.ui.example.com", "home.example.com"],
            "version": "2026.11.1", "unknownVersion": "Block",
            "blocks": [
                {"name": "core-2021-1-4", "versions": ["<=2021.1.4"], "reason": "Directory traversal",
                 "moreInfo": "https://example.com/a"},
                {"name": "slow", "versions": ["2026.11.1"], "reason": "Slow", "action": "Warn"}],
            "acceptedBlocks": ["other"], "allowNetworks": ["192.0.2.0/24"], "denyNetworks": ["192.0.2.7/32"],
            "limits": {"maxConnections": 8, "newConnectionsPerMinutePerClient": 9}, "tunnels": 2,
            "agentKeys": ["01".repeat(32), {"fingerprint": "02".repeat(32), "generation": 2}],
            "parkVisitors": false, "priority": -5
        }]
    });
    let from_json = RouteTable::parse(&json.to_string()).unwrap();
    let from_yaml = RouteTable::parse(FULL).unwrap();
    assert_eq!(only_route(&from_json), only_route(&from_yaml));
    assert_eq!((from_json.revision, from_json.domain), (from_yaml.revision, from_yaml.domain));
}

#[test]
fn what_is_left_out_has_its_default() {
    let table = RouteTable::parse(&with_lines("")).unwrap();
    let route = only_route(&table);
    let expected = Route::new("homes/lake".parse().unwrap())
        .with(|terms| terms.hostnames = vec!["lake.example".parse().unwrap()]);
    assert_eq!(*route, expected);
    assert_eq!((table.revision, table.domain.clone()), (0, None));
    assert_eq!(route.limits, Limits { max_connections: 512, new_connections_per_minute_per_client: 120 });
}

#[test]
fn flow_yaml_and_a_byte_order_mark_are_fine() {
    let text = "\u{feff}{routes: [{id: homes/lake, hostnames: [lake.example]}]}";
    assert_eq!(RouteTable::parse(text).unwrap().len(), 1);
    assert!(RouteTable::parse("routes: []").unwrap().is_empty());
}

#[test]
fn members_nobody_knows_refuse_their_route_alone() {
    for (lines, named) in [
        ("  allowPaths: [/api/]\n", "allowPaths"),
        ("  limits: {maxBandwidth: 1}\n", "limits.maxBandwidth"),
        ("  agentKeys: [{fingerprint: KEY, notAfter: 1}]\n", "agentKeys.0.notAfter"),
        ("  blocks: [{name: x, versions: [\"<1\"], onlyAtNight: true}]\n", "blocks.0.onlyAtNight"),
        ("  blocks: [{name: x, versions: [\"<1\"], action: Throttle}]\n", "blocks[x].action: Throttle"),
        ("  unknownVersion: Ask\n", "unknownVersion: Ask"),
    ] {
        let lines = lines.replace("KEY", &"ab".repeat(32));
        let text = with_lines(&lines) + "- id: homes/hill\n  hostnames: [hill.example]\n";
        let table = RouteTable::parse(&text).unwrap_or_else(|error| panic!("{lines}: {error}"));
        let strange = table.by_host("lake.example").unwrap();
        assert_eq!(strange.refusal(), Some(RouteRefusal::NotUnderstood(&[named.to_owned()])), "{lines}");
        assert_eq!(table.by_host("hill.example").unwrap().refusal(), None, "{lines}");
    }
}

#[test]
fn not_understood_is_the_same_in_json() {
    let text = r#"{"routes": [{"id": "homes/lake", "hostnames": [], "limits": {"maxBandwidth": 1}}]}"#;
    let table = RouteTable::parse(text).unwrap();
    assert_eq!(only_route(&table).not_understood, ["limits.maxBandwidth"]);
}

#[test]
fn shared_lists_keep_what_was_not_understood() {
    let block = "  blocks: [{name: x, versions: [\"<1\"], action: Throttle}]\n";
    let text = with_lines(block) + "- id: homes/hill\n  hostnames: [hill.example]\n" + block;
    let table = RouteTable::parse(&text).unwrap();
    let (lake, hill) = (table.by_id("homes/lake").unwrap(), table.by_id("homes/hill").unwrap());
    assert!(Arc::ptr_eq(&lake.blocks, &hill.blocks));
    assert!(lake.refusal().is_some() && hill.refusal().is_some());
}

#[test]
fn a_wrong_value_names_route_field_place_and_remedy() {
    for (lines, parts) in [
        (
            "  denyNetworks: [192.0.2.0/24, 10.0.0.1/8]\n",
            &["route homes/lake: denyNetworks[1]:", "10.0.0.0/8"][..],
        ),
        ("  allowNetworks: [home]\n", &["route homes/lake: allowNetworks[0]:", "not a network"]),
        ("  agentKeys: [abc]\n", &["route homes/lake: agentKeys[0]:", "64 hex digits"]),
        ("  product: Home Assistant\n", &["route homes/lake: product:", "not a product name"]),
        ("  tunnels: 0\n", &["route homes/lake: tunnels:", "1 to 64"]),
        ("  limits: {maxConnections: 0}\n", &["route homes/lake: limits.maxConnections:", "enabled: false"]),
        (
            "  blocks: [{name: x, versions: [\"~=1\"]}]\n",
            &["route homes/lake: blocks[x].versions:", "both bounds"],
        ),
        ("  blocks: [{name: x, versions: []}]\n", &["route homes/lake: blocks[x].versions:", "is empty"]),
    ] {
        let message = message(&with_lines(lines));
        assert!(message.starts_with("line "), "{message}");
        for part in parts {
            assert!(message.contains(part), "{lines}: {message}");
        }
    }
    let message = message("routes:\n- id: lake\n  hostnames: []\n");
    assert!(message.contains("route lake: id: \"lake\" is not an instance"), "{message}");
}

#[test]
fn a_wrong_type_names_field_and_place() {
    let wrong = message(&with_lines("  limits: {maxConnections: many}\n"));
    assert!(wrong.starts_with("line 4 column 28: routes[0].limits.maxConnections: "), "{wrong}");
    let wrong = message("{\"routes\": [{\"id\": \"homes/lake\",\n \"hostnames\": 5}]}");
    assert!(wrong.starts_with("line 2 column 15: routes[0].hostnames: "), "{wrong}");
    let wrong = message("{\"routes\": [{\"id\": \"a/b\", \"hostnames\": [], \"version\": 2023.10}]}");
    assert!(wrong.contains("in quotes"), "{wrong}");
    // YAML hands over the text as written, so nothing is lost there.
    let bare = RouteTable::parse(&with_lines("  version: 2023.10\n")).unwrap();
    assert_eq!(only_route(&bare).declared_version.text(), Some("2023.10"));
}

#[test]
fn a_file_that_is_no_table_is_refused() {
    for (text, part) in [
        ("", "the file: is empty"),
        (" \n", "the file: is empty"),
        ("revision: 7\n", "the file: has no routes"),
        ("{\"revision\": 7}", "no routes"),
        ("{\"routes\": [", "EOF"),
        ("routes: [\n", ""),
        ("route: []\n", "unknown field `route`"),
        ("routes: []\nroutes: []\n", "routes"),
        ("{\"routes\": [], \"routes\": []}", "twice"),
        ("routes: []\ndomain: \"*.example\"\n", "domain: \"*.example\" is not a host name: wildcards"),
        ("routes: []\nrevision: -1\n", "revision"),
        ("{\"routes\": []} x", "trailing"),
        ("routes: []\n---\nroutes: []\n", ""),
        ("- id: homes/lake\n", ""),
    ] {
        let message = message(text);
        assert!(message.contains(part), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{text:?}: {message}");
    }
}

#[test]
fn bounds_hold() {
    let large = " ".repeat(MAX_FILE_BYTES + 1);
    assert_eq!(RouteTable::parse(&large).unwrap_err(), TableError::TooLarge { bytes: MAX_FILE_BYTES + 1 });
    let list = |count: usize, entry: &str| vec![entry; count].join(", ");
    for (member, entry, most) in [
        ("allowNetworks", "192.0.2.1", 256),
        ("denyNetworks", "192.0.2.1", 256),
        ("acceptedBlocks", "x", 1_000),
        ("blocks", "{name: x, versions: [\"<1\"]}", 1_000),
    ] {
        let text = |count| with_lines(&format!("  {member}: [{}]\n", list(count, entry)));
        assert!(RouteTable::parse(&text(most)).is_ok(), "{member}");
        let message = message(&text(most + 1));
        assert!(message.contains(&format!("{member}: has {} entries", most + 1)), "{message}");
    }
}

#[test]
fn equal_parts_are_shared() {
    let mut text = String::from("routes:\n");
    for at in 0..100 {
        write!(text, "- {{id: homes/i{at}, hostnames: [i{at}.example], version: 2026.1.{}, ", at % 3)
            .unwrap();
        text.push_str("blocks: [{name: x, versions: [\"<2021\"]}]}\n");
    }
    let table = RouteTable::parse(&text).unwrap();
    let first = &table.by_id("homes/i0").unwrap().blocks;
    assert!(table.routes().all(|route| Arc::ptr_eq(&route.blocks, first)));
}

#[test]
fn equal_lists_of_different_schemes_are_not_shared() {
    let block = "blocks: [{name: x, versions: [\"<2021\"]}]";
    let text = format!(
        "routes:\n- {{id: a/a, hostnames: [], version: 2020.1, {block}}}\n\
         - {{id: a/b, hostnames: [], version: 2020.1, product: grafana, {block}}}\n"
    );
    let table = RouteTable::parse(&text).unwrap();
    assert_ne!(table.by_id("a/a").unwrap().blocks, table.by_id("a/b").unwrap().blocks);
    for id in ["a/a", "a/b"] {
        assert!(!table.by_id(id).unwrap().admit(None).is_admitted(), "{id}");
    }
}

#[test]
fn a_yaml_anchor_repeats_a_block_list_many_times() {
    let mut text = String::from("routes:\n");
    for at in 0..500 {
        let blocks = if at == 0 { "&core [{name: x, versions: [\"<2021\"]}]" } else { "*core" };
        writeln!(text, "- id: homes/i{at}\n  hostnames: [i{at}.example]\n  blocks: {blocks}").unwrap();
    }
    let table = RouteTable::parse(&text).unwrap();
    assert!(table.routes().all(|route| route.blocks.len() == 1));
}
