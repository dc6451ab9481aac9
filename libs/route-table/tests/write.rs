//! What is written reads back equal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use policy::{BlockAction, ReportedVersion, UnknownVersion, VersionBlock, VersionRange, VersionScheme};
use proptest::prelude::*;
use route_table::{AgentKey, Fingerprint, Limits, Route, RouteTable, RouteTerms};

/// Every member says something else than its default.
fn full() -> Route {
    let range = |text| VersionRange::parse(text, VersionScheme::Semantic).unwrap();
    let block = VersionBlock {
        name: "hole".into(),
        ranges: vec![range("<=1.4"), range(">=2.0, <2.3.2")],
        reason: "\"Directory\": traversal # no comment".to_owned(),
        more_info: Some("https://example.com/hole".to_owned()),
        action: BlockAction::Warn,
    };
    let key = |byte, generation| AgentKey { fingerprint: Fingerprint::from_bytes([byte; 32]), generation };
    let terms = RouteTerms {
        id: "homes/lake-house".parse().unwrap(),
        generation: 3,
        hostnames: vec!["lake.ui.example.com".parse().unwrap(), "lake.example".parse().unwrap()],
        enabled: false,
        product: "grafana".parse().unwrap(),
        declared_version: ReportedVersion::read("2023.10", VersionScheme::Semantic),
        unknown_version: UnknownVersion::Block,
        accepted_blocks: vec!["hole".to_owned(), "no".to_owned()],
        allow_networks: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        deny_networks: vec!["192.0.2.7".parse().unwrap()],
        limits: Limits { max_connections: 7, new_connections_per_minute_per_client: 9 },
        tunnels: 4,
        agent_keys: vec![key(1, 3), key(2, 2)],
        park_visitors: false,
        priority: -5,
        not_understood: Vec::new(),
    };
    terms.route([block].into())
}

fn assert_reads_back(table: &RouteTable) {
    let json = serde_json::to_string(table).unwrap();
    let yaml = serde_yaml::to_string(table).unwrap();
    for text in [json, yaml] {
        let read = RouteTable::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!((read.revision, &read.domain), (table.revision, &table.domain), "{text}");
        assert!(read.routes().eq(table.routes()), "{text}");
    }
}

fn table(routes: Vec<Route>) -> RouteTable {
    RouteTable::from_routes(7, Some("ui.example.com".parse().unwrap()), routes).unwrap()
}

#[test]
fn every_member_is_written_and_read() {
    assert_reads_back(&table(vec![full(), Route::new("homes/hill".parse().unwrap())]));
    assert_reads_back(&RouteTable::from_routes(0, None, []).unwrap());
}

#[test]
fn a_route_with_defaults_is_short() {
    let route = Route::new("homes/hill".parse().unwrap());
    let text = serde_json::to_string(&route).unwrap();
    assert_eq!(text, r#"{"id":"homes/hill","hostnames":[],"enabled":true}"#);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_text_in_a_route_reads_back(
        version in "\\PC{0,80}",
        reason in "\\PC{0,40}",
        accepted in "[a-z.-]{1,20}",
        generation in 1_u64..4,
        key_generation in 1_u64..4,
        tunnels in 1_u32..=64,
        priority in any::<i32>(),
    ) {
        let route = full();
        let blocks = route.blocks.iter().map(|block| VersionBlock { reason: reason.clone(), ..block.clone() });
        let route = route.with_blocks(&blocks.collect()).with(|terms| {
            terms.declared_version = ReportedVersion::read(&version, terms.product.scheme());
            terms.accepted_blocks = vec![accepted];
            terms.generation = generation;
            terms.agent_keys.iter_mut().for_each(|key| key.generation = key_generation);
            terms.tunnels = tunnels;
            terms.priority = priority;
        });
        assert_reads_back(&table(vec![route]));
    }
}
