//! Every kind of expectation is able to fail, and says where.

#![allow(clippy::panic, reason = "a helper that fails is a test that fails")]

use scenarios::{Failed, PlannerWorld, play, read_text};

/// One instance that is served and one block that blocks nobody, with everything that can be expected of them.
const GOOD: &str = r#"
title: Everything at once
why: So that every member can be made wrong once.
steps:
- step: it is written
  apply:
  - kind: RemoteInstance
    metadata: {name: lake, namespace: homes}
    spec:
      enabled: true
      hostname: lake
      customDomains: [home.example.net]
      version: "2026.11.1"
      acceptedBlocks: [{name: hole}]
      agentKeys: [<key:agent>]
      access: {allowNetworks: [192.0.2.0/24], denyNetworks: [192.0.2.66]}
  - kind: VersionBlock
    metadata: {name: hole}
    spec: {versions: ["<=2021.1.4"], reason: Directory traversal}
  facts:
    dns: {home.example.net: "CNAME <random:homes/lake>.ui.example.com"}
    reports:
      homes/lake:
        connected: true
        agentVersion: 1.0.0
        protocolVersion: 2
        version: "2026.11.2"
        certificate: {fingerprint: <key:certificate>, names: [lake.ui.example.com], issuer: CA, notAfter: +90d}
  expect:
    routes:
      homes/lake:
        hostnames: [home.example.net, lake.ui.example.com, "<random:homes/lake>.ui.example.com"]
        served: true
        refusedBy: []
        enabled: true
        product: home-assistant-core
        version: 2026.11.1
        unknownVersion: Allow
        blocks: [hole]
        acceptedBlocks: [hole]
        allowNetworks: [192.0.2.0/24]
        denyNetworks: [192.0.2.66]
        maxConnections: 512
        newConnectionsPerMinutePerClient: 120
        tunnels: 1
        agentKeys: [<key:agent>]
    statuses:
      homes/hill: absent
      homes/lake:
        observedGeneration: 1
        url: https://lake.ui.example.com
        hostnames:
          lake.ui.example.com: Serving
          <random:homes/lake>.ui.example.com: Serving
          home.example.net: {state: Serving, kind: Custom, verification: {type: TXT, name: _latchkey.home.example.net}}
        version: 2026.11.2 Reported
        blockedBy: []
        tunnel: {connected: true, since: +0s, agentVersion: 1.0.0, protocolVersion: 2}
        certificate:
          {fingerprintSha256: <key:certificate>, names: [lake.ui.example.com], issuer: CA, notAfter: +90d}
        conditions: {Ready: "True Serving: visitors", Stalled: absent}
    blocks:
      hole: {observedGeneration: 1, matched: 0, blocked: 0, accepted: 0, conditions: {Ready: True InForce}}
    events:
    - Normal homes/lake TunnelUp
    - Normal homes/lake PendingVerification
    - Normal homes/lake AllServing
    nextRun: none
"#;

/// What stands in the expectation, what stands there instead, and the member that must be told.
const WRONG: &[(&str, &str, &str)] = &[
    ("[home.example.net, lake.ui.example.com,", "[lake.ui.example.com,", "routes.homes/lake.hostnames"),
    ("served: true", "served: false", "routes.homes/lake.served"),
    ("refusedBy: []", "refusedBy: [hole]", "routes.homes/lake.refusedBy"),
    ("        enabled: true", "        enabled: false", "routes.homes/lake.enabled"),
    ("product: home-assistant-core", "product: esphome", "routes.homes/lake.product"),
    ("version: 2026.11.1\n", "version: none\n", "routes.homes/lake.version"),
    ("unknownVersion: Allow", "unknownVersion: Block", "routes.homes/lake.unknownVersion"),
    ("blocks: [hole]\n", "blocks: []\n", "routes.homes/lake.blocks"),
    ("acceptedBlocks: [hole]", "acceptedBlocks: []", "routes.homes/lake.acceptedBlocks"),
    ("allowNetworks: [192.0.2.0/24]\n", "allowNetworks: []\n", "routes.homes/lake.allowNetworks"),
    ("denyNetworks: [192.0.2.66]\n", "denyNetworks: []\n", "routes.homes/lake.denyNetworks"),
    ("maxConnections: 512", "maxConnections: 1", "routes.homes/lake.maxConnections"),
    ("PerClient: 120", "PerClient: 1", "routes.homes/lake.newConnectionsPerMinutePerClient"),
    ("tunnels: 1", "tunnels: 2", "routes.homes/lake.tunnels"),
    ("agentKeys: [<key:agent>]\n    stat", "agentKeys: []\n    stat", "routes.homes/lake.agentKeys"),
    ("routes:\n      homes/lake:", "routes:\n      homes/hill:", "routes.homes/lake"),
    ("homes/hill: absent", "homes/hill: {url: none}", "statuses.homes/hill"),
    (
        "homes/lake:\n        observedGeneration: 1",
        "homes/lake:\n        observedGeneration: 2",
        "observedGeneration",
    ),
    ("url: https://lake.ui", "url: https://hill.ui", "statuses.homes/lake.url"),
    ("          lake.ui.example.com: Serving\n", "", "statuses.homes/lake.hostnames.lake.ui.example.com"),
    ("  lake.ui.example.com: Serving", "  lake.ui.example.com: Conflict", "hostnames.lake.ui.example.com"),
    (
        "  lake.ui.example.com: Serving",
        "  lake.ui.example.com: 'Serving: but'",
        "hostnames.lake.ui.example.com",
    ),
    ("kind: Custom", "kind: Assigned", "hostnames.home.example.net.kind"),
    ("verification: {", "verification: {value: x, ", "hostnames.home.example.net.verification.value"),
    ("2026.11.2 Reported", "2026.11.2 Declared", "statuses.homes/lake.version"),
    ("blockedBy: []", "blockedBy: [hole]", "statuses.homes/lake.blockedBy"),
    ("tunnel: {connected: true", "tunnel: {connected: false", "statuses.homes/lake.tunnel.connected"),
    ("since: +0s", "since: -1s", "statuses.homes/lake.tunnel.since"),
    ("agentVersion: 1.0.0, ", "agentVersion: 1.0.1, ", "statuses.homes/lake.tunnel.agentVersion"),
    ("protocolVersion: 2}", "protocolVersion: 1}", "statuses.homes/lake.tunnel.protocolVersion"),
    ("fingerprintSha256: <key:certificate>", "fingerprintSha256: <key:x>", "certificate.fingerprintSha256"),
    ("issuer: CA, notAfter: +90d}\n        cond", "issuer: CB}\n        cond", "certificate.issuer"),
    ("notAfter: +90d}\n        cond", "notAfter: +1d}\n        cond", "certificate.notAfter"),
    ("True Serving: visitors", "True Serving: nobody", "statuses.homes/lake.conditions.Ready"),
    ("True Serving: visitors", "False Serving: visitors", "statuses.homes/lake.conditions.Ready"),
    ("True Serving: visitors", "True Disabled: visitors", "statuses.homes/lake.conditions.Ready"),
    ("Stalled: absent", "Stalled: True Blocked", "statuses.homes/lake.conditions.Stalled"),
    ("Stalled: absent", "Connected: absent", "statuses.homes/lake.conditions.Connected"),
    ("hole: {observedGeneration: 1", "hole: {observedGeneration: 2", "blocks.hole.observedGeneration"),
    ("matched: 0", "matched: 1", "blocks.hole.matched"),
    ("blocked: 0", "blocked: 1", "blocks.hole.blocked"),
    ("accepted: 0", "accepted: 1", "blocks.hole.accepted"),
    ("Ready: True InForce", "Ready: True Warning", "blocks.hole.conditions.Ready"),
    ("      hole: {obs", "      hill: absent\n      hole: {obs", ""),
    ("Normal homes/lake TunnelUp", "Warning homes/lake TunnelUp", "events"),
    ("    - Normal homes/lake TunnelUp\n", "", "events"),
    ("nextRun: none", "nextRun: +1h", "nextRun"),
];

fn told(text: &str) -> Vec<String> {
    let scenario = read_text(text).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
    match play(&scenario, &mut PlannerWorld::default()) {
        Ok(()) => Vec::new(),
        Err(failure) => match &failure.failed {
            Failed::Stuck(why) => panic!("{why}"),
            Failed::Differently(mismatches) => mismatches.iter().map(|each| each.path.clone()).collect(),
        },
    }
}

#[test]
fn what_is_right_passes() {
    assert_eq!(told(GOOD), Vec::<String>::new());
}

#[test]
fn what_is_wrong_is_told_with_its_member() {
    for (there, instead, member) in WRONG {
        assert_eq!(GOOD.matches(there).count(), 1, "{there}");
        let told = told(&GOOD.replace(there, instead));
        if member.is_empty() {
            assert!(told.is_empty(), "{instead}: {told:?}");
        } else {
            assert!(told.iter().any(|path| path.contains(member)), "{instead}: {told:?}");
        }
    }
}

#[test]
fn a_failure_reads_like_a_diff_with_placeholders() {
    let scenario = read_text(
        &GOOD
            .replace("served: true", "served: false")
            .replace("hostnames: [home.example.net, lake.ui.example.com,", "hostnames: ["),
    );
    let failure = play(&scenario.unwrap(), &mut PlannerWorld::default()).unwrap_err().to_string();
    assert_eq!(
        failure,
        "  step 1 (2026-01-01T00:00:00Z), it is written\n    \
           routes.homes/lake.hostnames\n      \
             expected  [<random:homes/lake>.ui.example.com]\n      \
             came      [home.example.net, lake.ui.example.com, <random:homes/lake>.ui.example.com]\n    \
           routes.homes/lake.served\n      \
             expected  false\n      \
             came      true\n"
    );
}
