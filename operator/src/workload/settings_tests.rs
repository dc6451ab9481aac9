use super::*;

const LEAST: &str = "spec: {domain: ui.example.com}\nproxies: {image: latchkey-proxy:1}\n";

fn wrong(document: &str) -> String {
    InstallationSettings::read(document).expect_err(document).to_string()
}

/// The least document with further members of `proxies`.
fn with(proxies: &str) -> String {
    format!("spec: {{domain: ui.example.com}}\nproxies:\n  image: latchkey-proxy:1\n  {proxies}\n")
}

#[test]
fn the_least_document_has_defaults_for_the_rest() {
    let settings = InstallationSettings::read(LEAST).unwrap();
    assert_eq!(settings.spec.domain.as_str(), "ui.example.com");
    let proxies = settings.proxies;
    assert_eq!((proxies.replicas, proxies.grace_seconds, proxies.service.port), (2, 60, 443));
    assert_eq!(proxies.roll.ready_within(), Duration::from_mins(5));
    assert_eq!(proxies.roll.tunnels_within(), Duration::from_mins(10));
    assert_eq!(proxies.resources.limits.get("memory").map(Amount::as_str), Some("2Gi"));
}

#[test]
fn everything_can_be_said() {
    let settings = InstallationSettings::read(
        r"
spec:
  domain: ui.example.com
  default: false
  namespaces: [homes]
  unknownVersion: Block
  reservedLabels: [www]
  quarantineDays: 30
  publicPort: 8443
  tunnelAddress: connect.example.com:8443
proxies:
  image: registry.example.com/latchkey-proxy@sha256:0123
  imagePullPolicy: IfNotPresent
  imagePullSecrets: [registry]
  replicas: 5
  graceSeconds: 120
  arguments: [--trusted-proxies=10.0.0.0/24, --max-clients=1000]
  resources:
    requests: {cpu: 2, memory: 1Gi}
    limits: {cpu: 4, memory: 4Gi}
  tableCache: 512Mi
  nodeSelector: {kubernetes.io/arch: arm64}
  tolerations:
    - {key: edge, operator: Exists, effect: NoSchedule}
    - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
  priorityClassName: important
  service:
    type: NodePort
    port: 8443
    annotations: {example.com/pool: edge}
    loadBalancerClass: example.com/lb
    externalTrafficPolicy: Cluster
  scrapersFrom: [monitoring]
  roll: {readyWithinSeconds: 60, tunnelsWithinSeconds: 0, tunnelsBackPercent: 50}
",
    )
    .unwrap();
    assert_eq!(settings.proxies.resources.requests.get("cpu").map(Amount::as_str), Some("2"));
    assert_eq!(settings.proxies.service.kind, crate::workload::proxy_settings::ServiceKind::NodePort);
    assert_eq!(settings.proxies.tolerations.len(), 2);
}

#[test]
fn what_is_wrong_names_the_member() {
    for (document, said) in [
        (with("replica: 3"), "proxies.replica: nobody knows this member; did you mean `replicas`?"),
        (
            with("service: {ports: 1}"),
            "proxies.service.ports: nobody knows this member; did you mean `port`?",
        ),
        (with("roll: {zzz: 1}"), "proxies.roll.zzz: nobody knows this member; known are readyWithinSeconds,"),
        (with("service: {type: Loadbalancer}"), "did you mean `LoadBalancer`?"),
        (with("service: {port: 0}"), "proxies.service.port: must be from 1 to 65535, not 0"),
        (with("replicas: 0"), "proxies.replicas: must be from 1 to 64, not 0"),
        (with("replicas: many"), "proxies.replicas: invalid type"),
        (with("graceSeconds: 0"), "proxies.graceSeconds: must be from 1 to 3600"),
        (with("arguments: [trusted]"), "proxies.arguments[0]: is no option"),
        (with("arguments: ['-- x']"), "proxies.arguments[0]: is no option"),
        (
            with("arguments: [--max-clients=1, --listen=0.0.0.0:1]"),
            "proxies.arguments[1]: --listen is set by the operator",
        ),
        (with("arguments: [--routes=x]"), "proxies.arguments[0]: --routes does not go with an operator"),
        (
            with("resources: {limits: {memory: 1 GB}}"),
            "proxies.resources.limits.memory: invalid value: string \"1 GB\"",
        ),
        (
            with("resources: {requests: {memory: 3Gi}}"),
            "proxies.resources.requests.memory: is more than the limit",
        ),
        (with("tableCache: 0"), "proxies.tableCache: is 0"),
        (with("nodeSelector: {a: 'b c'}"), "proxies.nodeSelector.a: is no value of a label"),
        (with("tolerations: [{value: x}]"), "proxies.tolerations[0].key: is missing"),
        (with("imagePullSecrets: [A]"), "proxies.imagePullSecrets[0]: is no name of an object"),
        (with("priorityClassName: ''"), "proxies.priorityClassName: is no name"),
        (with("scrapersFrom: [a.b]"), "proxies.scrapersFrom[0]: is no name of a namespace"),
        (
            with("roll: {tunnelsBackPercent: 101}"),
            "proxies.roll.tunnelsBackPercent: must be from 0 to 100, not 101",
        ),
        (with("roll: {readyWithinSeconds: 0}"), "proxies.roll.readyWithinSeconds: must be from 1"),
        (LEAST.replace("latchkey-proxy:1", "''"), "proxies.image: is no reference"),
        (
            LEAST.replace("image:", "imagine:"),
            "proxies.imagine: nobody knows this member; did you mean `image`?",
        ),
        (LEAST.replace("{image: latchkey-proxy:1}", "{}"), "proxies.image: is missing"),
        (
            LEAST.replace("domain:", "publicPort: 1, nomain:"),
            "spec.nomain: nobody knows this member; did you mean `domain`?",
        ),
        (LEAST.replace("domain:", "publicPort: 0, domain:"), "spec.publicPort: is 0"),
        (LEAST.replace("ui.example.com", "x y"), "spec.domain: "),
        ("spec: {domain: ui.example.com}".to_owned(), "proxies: is missing"),
        ("[]".to_owned(), "installation.yaml: "),
        ("spec: [".to_owned(), "is not YAML: "),
        (format!("{LEAST}{LEAST}"), "is not YAML: "),
    ] {
        let told = wrong(&document);
        assert!(
            told.starts_with("installation.yaml") && told.contains(said),
            "{document}\n{told}\nnot: {said}"
        );
    }
    assert_eq!(InstallationSettings::of_data(None), Err(SettingsError::NoDocument));
}

/// What newcomers apply must be taken, and what the page says of members must be true.
#[test]
fn the_example_is_taken_and_the_page_knows_every_member() {
    let example = include_str!("../../../deploy/settings.yaml");
    let map: serde_json::Value = serde_yaml::from_str(example).unwrap();
    assert_eq!(map["metadata"]["name"], "latchkey-default");
    InstallationSettings::read(map["data"][KEY].as_str().unwrap()).unwrap();

    let page = include_str!("../../../docs/installation.md");
    let told = |member: &str| page.contains(&format!("`{member}`"));
    let known = |document: &str| {
        let told = wrong(document);
        let list = told.split("known are ").nth(1).unwrap_or_else(|| panic!("{told}"));
        list.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    for member in known(&with("zzz: 1")) {
        let parts: &[&str] = match member.as_str() {
            "resources" => &["resources: {zzz: 1}"],
            "service" => &["service: {zzz: 1}"],
            "roll" => &["roll: {zzz: 1}"],
            _ => &[],
        };
        assert!(!parts.is_empty() || told(&member), "{member} is not in docs/installation.md");
        for part in parts {
            for inner in known(&with(part)) {
                assert!(
                    told(&format!("{member}.{inner}")),
                    "{member}.{inner} is not in docs/installation.md"
                );
            }
        }
    }
    let defaults = InstallationSettings::read(LEAST).unwrap().proxies;
    for (member, default) in [
        ("replicas", defaults.replicas.to_string()),
        ("graceSeconds", defaults.grace_seconds.to_string()),
        ("tableCache", defaults.table_cache.as_str().to_owned()),
        ("service.port", defaults.service.port.to_string()),
        ("roll.readyWithinSeconds", defaults.roll.ready_within_seconds.to_string()),
        ("roll.tunnelsWithinSeconds", defaults.roll.tunnels_within_seconds.to_string()),
        ("roll.tunnelsBackPercent", defaults.roll.tunnels_back_percent.to_string()),
    ] {
        assert!(page.contains(&format!("| `{member}` | {default} |")), "{member}: {default}");
    }
}
