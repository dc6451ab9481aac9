use super::*;

fn names() -> Names {
    Names { namespace: "latchkey".to_owned(), installation: "default".to_owned() }
}

fn settings(proxies: &str) -> InstallationSettings {
    let document =
        format!("spec: {{domain: ui.example.com}}\nproxies: {{image: latchkey-proxy:1, {proxies}}}");
    InstallationSettings::read(&document).unwrap()
}

fn made(proxies: &str) -> Vec<WantedObject> {
    objects(&names(), &settings(proxies)).unwrap()
}

fn object(proxies: &str, kind: &str) -> Value {
    let found = made(proxies).into_iter().find(|wanted| wanted.kind.to_string() == kind);
    found.unwrap_or_else(|| panic!("no {kind}")).object
}

const PUBLIC_SERVICE: &str = "Service latchkey-default-proxy";
const STATEFUL_SET: &str = "StatefulSet latchkey-default-proxy";

fn template(proxies: &str) -> Value {
    object(proxies, STATEFUL_SET).pointer("/spec/template").unwrap().clone()
}

#[test]
fn all_are_of_the_installation_and_are_watched() {
    let made = made("");
    let watched = kinds(&names());
    assert_eq!(made.iter().map(|wanted| wanted.kind.clone()).collect::<Vec<_>>(), watched);
    for wanted in made {
        let object = wanted.object;
        assert_eq!(object.pointer("/metadata/labels/latchkey.dev~1installation"), Some(&json!("default")));
        assert_eq!(object.pointer("/metadata/namespace"), Some(&json!("latchkey")));
        assert!(object.pointer("/metadata/annotations/latchkey.dev~1applied").is_some());
        assert_eq!(object.pointer("/metadata/ownerReferences"), None);
        assert!(object.get("apiVersion").is_some() && object.get("kind").is_some());
    }
}

/// What the "restricted" pod security standard asks for, and no credential.
#[test]
fn pods_have_no_rights() {
    let template = template("");
    for (pointer, value) in [
        ("/spec/automountServiceAccountToken", json!(false)),
        ("/spec/serviceAccountName", json!("latchkey-default-proxy")),
        ("/spec/securityContext/runAsNonRoot", json!(true)),
        ("/spec/securityContext/runAsUser", json!(65532)),
        ("/spec/securityContext/seccompProfile/type", json!("RuntimeDefault")),
        ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(false)),
        ("/spec/containers/0/securityContext/readOnlyRootFilesystem", json!(true)),
        ("/spec/containers/0/securityContext/capabilities", json!({"drop": ["ALL"]})),
        ("/spec/volumes/0/secret/secretName", json!("latchkey-default-proxy-certificates")),
        ("/spec/volumes/1/emptyDir", json!({"medium": "Memory", "sizeLimit": "256Mi"})),
    ] {
        assert_eq!(template.pointer(pointer), Some(&value), "{pointer}");
    }
    assert_eq!(
        object("", "ServiceAccount latchkey-default-proxy").get("automountServiceAccountToken"),
        Some(&json!(false))
    );
}

#[test]
fn the_grace_of_the_pod_is_longer_than_that_of_the_proxy() {
    let template = template("graceSeconds: 90");
    let pod_grace = template.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap();
    let arguments = template.pointer("/spec/containers/0/args").unwrap().to_string();
    assert!(arguments.contains("--grace=90") && pod_grace > 90, "{arguments} {pod_grace}");
}

#[test]
fn arguments_that_are_set_here_cannot_be_set_in_the_settings() {
    let mut settings = settings("");
    settings.spec.tunnel_address = Some("connect.example.com:443".to_owned());
    let set = objects(&names(), &settings).unwrap().pop().unwrap().object;
    let arguments = set.pointer("/spec/template/spec/containers/0/args").and_then(Value::as_array).unwrap();
    let named: Vec<&str> =
        arguments.iter().map(|argument| argument.as_str().unwrap().split('=').next().unwrap()).collect();
    for name in &named {
        assert!(stateful_set::OWN_ARGUMENTS.contains(name), "{name}");
    }
    assert_eq!(named.len(), stateful_set::OWN_ARGUMENTS.len());
}

#[test]
fn settings_that_need_no_restart_leave_the_template_as_it_is() {
    let before = template("");
    for change in [
        "replicas: 5",
        "service: {type: NodePort, annotations: {a: b}, port: 8443}",
        "scrapersFrom: [monitoring]",
        "roll: {readyWithinSeconds: 10, tunnelsBackPercent: 50, tunnelsWithinSeconds: 1}",
    ] {
        assert_eq!(template(change), before, "{change}");
    }
    for change in
        ["graceSeconds: 61", "tableCache: 1Gi", "arguments: [--max-clients=9]", "nodeSelector: {a: b}"]
    {
        assert_ne!(template(change), before, "{change}");
    }
}

#[test]
fn the_hash_tells_what_was_taken_away() {
    let hash = |proxies: &str| {
        object(proxies, PUBLIC_SERVICE).pointer("/metadata/annotations/latchkey.dev~1applied").cloned()
    };
    assert_eq!(hash("replicas: 3"), hash(""));
    assert_ne!(hash("service: {annotations: {a: b}}"), hash(""));
}

#[test]
fn what_does_not_go_with_the_type_of_a_service_is_left_out() {
    let spec = |proxies: &str, member: &str| {
        object(proxies, PUBLIC_SERVICE).pointer(&format!("/spec/{member}")).cloned()
    };
    let class = "loadBalancerClass: example.com/lb";
    assert_eq!(spec("", "externalTrafficPolicy"), Some(json!("Local")));
    assert_eq!(spec(&format!("service: {{{class}}}"), "loadBalancerClass"), Some(json!("example.com/lb")));
    assert_eq!(spec(&format!("service: {{type: NodePort, {class}}}"), "loadBalancerClass"), None);
    assert_eq!(spec("service: {type: ClusterIP}", "externalTrafficPolicy"), None);
}

/// An empty list of peers would mean everybody.
#[test]
fn the_admin_port_is_open_to_those_who_are_named_alone() {
    for proxies in ["", "scrapersFrom: [monitoring]"] {
        let policy = object(proxies, "NetworkPolicy latchkey-default-proxy");
        let rule = policy.pointer("/spec/ingress/1").unwrap();
        assert_eq!(rule.pointer("/ports/0/port"), Some(&json!(9100)));
        assert!(rule.get("from").and_then(Value::as_array).is_some_and(|from| !from.is_empty()), "{rule}");
        assert!(policy.pointer("/spec/egress/0/to").is_some());
    }
}
