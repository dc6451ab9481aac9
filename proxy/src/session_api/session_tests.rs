use policy::{BlockAction, UnknownVersion, VersionBlock, VersionRange, VersionScheme};
use route_table::AgentKey;

use super::*;

struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

const KEY: Fingerprint = Fingerprint::from_bytes([7; 32]);

fn route() -> Route {
    let block = VersionBlock {
        name: "core-2021-1-4".into(),
        ranges: vec![VersionRange::parse("<=2021.1.4", VersionScheme::Calendar).unwrap()],
        reason: "Directory traversal".to_owned(),
        more_info: Some("https://example.com/d2".to_owned()),
        action: BlockAction::Block,
    };
    let route = Route::new("homes/lake".parse().unwrap()).with(|terms| {
        terms.generation = 4;
        terms.hostnames = vec!["lake.ui.example.com".parse().unwrap(), "lake.example".parse().unwrap()];
        terms.agent_keys = vec![AgentKey { fingerprint: KEY, generation: 4 }];
    });
    route.with_blocks(&[block].into())
}

fn request(version: Option<&str>) -> SessionRequest {
    SessionRequest {
        version: version.map(str::to_owned),
        product: None,
        agent_version: "0.1.0".to_owned(),
        protocol_version: ProtocolVersion::V2,
        cipher: CipherKind::AesGcmSiv,
        certificate: None,
    }
}

fn decide(route: Route, request: &SessionRequest) -> Result<Grant, Problem> {
    let table = RouteTable::from_routes(1, None, [route]).unwrap();
    decide_session(&table, Some(&KEY), request, &TokenTerms::default(), 1000, &mut Counting(0))
}

#[test]
fn a_grant_names_instance_generation_and_what_was_reported() {
    let grant = decide(route(), &request(Some("2026.11.1"))).unwrap();
    assert_eq!(grant.valid_until, 1000 + 24 * 3600);
    assert_eq!(grant.token.hostnames().collect::<Vec<_>>(), ["lake.ui.example.com", "lake.example"]);
    assert_eq!(grant.token.protocol_version, ProtocolVersion::V2);
    assert_eq!(grant.token.cipher, CipherKind::AesGcmSiv);
    let claims = grant.token.extra.clone().unwrap();
    assert_eq!((claims.instance.as_str(), claims.generation), ("homes/lake", 4));
    assert_eq!((claims.version.as_str(), claims.agent.as_str()), ("2026.11.1", "0.1.0"));
    assert_eq!(claims.key, KEY.to_string());
    assert_eq!(claims.session, grant.session);
    assert_ne!(grant.token.aes_key.0[..16], grant.token.aes_iv.0, "key material is not used twice");

    let keys = FernetKeys::from_lines("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let sealed = grant.seal(&keys, 1000, &mut Counting(9)).unwrap();
    assert_eq!(Token::open(&keys, sealed.as_bytes(), 1000.0).unwrap(), grant.token);
}

#[test]
fn many_hostnames_do_not_keep_an_instance_from_its_token() {
    let hostnames = (0..40).map(|n| format!("{}{n}.example", "x".repeat(50)).parse().unwrap()).collect();
    let grant = decide(route().with(|terms| terms.hostnames = hostnames), &request(None)).unwrap();
    let keys = FernetKeys::from_lines("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let sealed = grant.seal(&keys, 1000, &mut Counting(9)).unwrap();
    let opened = Token::open(&keys, sealed.as_bytes(), 1000.0).unwrap();
    assert_eq!(opened.extra, grant.token.extra);
}

#[test]
fn keys_are_looked_up_like_authorized_keys() {
    let table = RouteTable::from_routes(1, None, [route()]).unwrap();
    let ask = |key: Option<&Fingerprint>| {
        decide_session(&table, key, &request(None), &TokenTerms::default(), 1000, &mut Counting(0))
    };
    assert!(ask(Some(&KEY)).is_ok());
    let stranger = Fingerprint::from_bytes([8; 32]);
    let problem = ask(Some(&stranger)).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::UnknownKey);
    assert!(problem.detail.contains(&format!("add {stranger} to agentKeys")), "{problem:?}");
    assert_eq!(ask(None).unwrap_err().kind, ProblemKind::NoCertificate);
    let rotated = decide(route().with(|terms| terms.generation = 5), &request(None)).unwrap_err();
    assert_eq!(rotated.kind, ProblemKind::UnknownKey);
    assert!(rotated.detail.contains("earlier generation"), "{rotated:?}");
}

#[test]
fn what_the_route_refuses_is_refused_in_its_order() {
    let old = request(Some("2020.12.1"));
    let disabled = decide(route().with(|terms| terms.enabled = false), &old).unwrap_err();
    assert_eq!(disabled.kind, ProblemKind::Disabled);
    assert_eq!(disabled.instance.as_deref(), Some("homes/lake"));
    let strange = route().with(|terms| terms.not_understood = vec!["limits.maxBandwidth".into()]);
    let problem = decide(strange, &old).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::NotUnderstood);
    assert!(problem.detail.contains("limits.maxBandwidth"), "{problem:?}");

    let blocked = decide(route(), &old).unwrap_err();
    assert_eq!(blocked.kind, ProblemKind::Blocked);
    assert_eq!(blocked.blocks[0].name, "core-2021-1-4");
    assert_eq!(blocked.blocks[0].more_info.as_deref(), Some("https://example.com/d2"));
    let accepted = route().with(|terms| terms.accepted_blocks = vec!["core-2021-1-4".into()]);
    assert!(decide(accepted, &old).is_ok());

    let strict = || route().with(|terms| terms.unknown_version = UnknownVersion::Block);
    assert_eq!(decide(strict(), &request(None)).unwrap_err().kind, ProblemKind::UnknownVersion);
    let unreadable = decide(strict(), &request(Some("latest"))).unwrap_err();
    assert!(unreadable.detail.contains("latest"), "{unreadable:?}");
    assert!(decide(route(), &request(Some("latest"))).is_ok());
}

#[test]
fn a_version_of_another_product_is_not_judged_by_this_ones_blocks() {
    let other = SessionRequest { product: Some("nginx".parse().unwrap()), ..request(Some("1.0.0")) };
    let problem = decide(route(), &other).unwrap_err();
    assert_eq!(problem.kind.status(), 422);
    assert!(problem.detail.contains("nginx") && problem.detail.contains("home-assistant-core"));
    let same = SessionRequest { product: Some(Product::default()), ..request(None) };
    assert!(decide(route(), &same).is_ok());
}

#[test]
fn a_route_without_a_hostname_has_to_wait() {
    let problem = decide(route().with(|terms| terms.hostnames.clear()), &request(None)).unwrap_err();
    assert_eq!(problem.kind.status(), 503);
    assert!(problem.retry_after.is_some());
}

#[test]
fn a_lifetime_is_capped() {
    let forever = TokenTerms { lifetime: Duration::MAX, server: None };
    assert_eq!(forever.valid_until(1000), 1000 + 7 * 24 * 3600);
    assert_eq!(TokenTerms { lifetime: Duration::ZERO, server: None }.valid_until(5), 6);
}

#[test]
fn a_request_is_read_and_a_newer_agent_may_say_more() {
    let body = format!(
        r#"{{"agentVersion": "9.1", "protocolVersion": 7, "cipher": "aes-gcm-siv", "product": "home-assistant-core",
            "version": "2026.11.1", "mood": {{"good": true}}, "certificate": {{"fingerprintSha256": "{}",
            "names": ["a.example"], "issuer": "CN=x", "notAfter": "2026-11-21T00:00:00Z"}}}}"#,
        "0c".repeat(32)
    );
    let request = parse_session_request(body.as_bytes()).unwrap();
    assert_eq!(request.protocol_version, ProtocolVersion::V2);
    let facts = request.certificate.unwrap();
    assert_eq!(facts.fingerprint_sha256, Fingerprint::from_bytes([12; 32]));
    assert_eq!(facts.names, ["a.example"]);
    let bare = br#"{"agentVersion": "1", "protocolVersion": 2, "cipher": "aes-cbc", "version": null}"#;
    assert_eq!(parse_session_request(bare).unwrap().version, None);
}

#[test]
fn every_error_names_the_member() {
    let good = r#"{"agentVersion": "1", "protocolVersion": 2, "cipher": "aes-cbc"}"#;
    assert!(parse_session_request(good.as_bytes()).is_ok());
    for (from, to, status, named) in [
        ("\"agentVersion\"", "\"agent\"", 400, "agentVersion"),
        ("\"1\"", "1", 400, "agentVersion"),
        ("\"1\"", "\"a\\nb\"", 400, "agentVersion"),
        ("2,", "-2,", 400, "protocolVersion"),
        ("aes-cbc", "rot13", 422, "cipher"),
        ("}", ", \"version\": 2023.10}", 400, "version"),
        ("}", ", \"product\": \"Not A Product!\"}", 400, "product"),
        ("}", ", \"certificate\": []}", 400, "certificate"),
        ("}", ", \"certificate\": {\"fingerprintSha256\": \"ab\"}}", 400, "fingerprintSha256"),
        ("}", ", \"cipher\": \"aes-gcm\"}", 400, "cipher\" stands there twice"),
        ("{", "[{", 400, "JSON object"),
        ("}", "", 400, "not JSON"),
    ] {
        let problem = parse_session_request(good.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert_eq!(problem.kind.status(), status, "{problem:?}");
        assert!(problem.detail.contains(named), "{problem:?}");
    }
    let long = vec![b' '; crate::session_api::MAX_BODY_BYTES + 1];
    assert_eq!(parse_session_request(&long).unwrap_err().kind, ProblemKind::TooLarge);
    let deep = "[".repeat(10_000);
    assert_eq!(parse_session_request(deep.as_bytes()).unwrap_err().kind, ProblemKind::BadRequest);
}
