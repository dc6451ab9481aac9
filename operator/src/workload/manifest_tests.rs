//! `deploy/operator.yaml` goes with what the operator makes and expects.

use serde_json::{Value, json};

use super::labels::{OPERATOR_APP, PROXY_APP, selected_by};
use super::network_policy::network_policy;
use crate::names::{LINK_PORT, Names};

fn names() -> Names {
    Names { namespace: "latchkey".to_owned(), installation: "default".to_owned() }
}

fn object(kind: &str) -> Value {
    let text = include_str!("../../../deploy/operator.yaml");
    let objects: Vec<Value> = serde_yaml::from_multiple(text).unwrap();
    let object = objects.into_iter().find(|object| object["kind"] == kind);
    object.unwrap_or_else(|| panic!("no {kind} in deploy/operator.yaml"))
}

fn at(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).clone()
}

fn pods_of(app: &str) -> Value {
    json!({"matchLabels": selected_by(&names(), app)})
}

/// What a container calls its ports.
fn ports(template: &Value) -> Value {
    let ports = at(template, "/spec/containers/0/ports");
    ports
        .as_array()
        .unwrap()
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].clone()))
        .collect()
}

/// What a proxy may reach of the operator, the operator lets in from proxies, and the rest of the cluster sees metrics alone.
#[test]
fn the_network_policies_of_both_ends_go_together() {
    let theirs = object("NetworkPolicy");
    let proxies = serde_json::to_value(network_policy(&names(), &[])).unwrap();
    assert_eq!(at(&theirs, "/spec/podSelector"), pods_of(OPERATOR_APP));
    assert_eq!(at(&proxies, "/spec/egress/0/to"), json!([{"podSelector": pods_of(OPERATOR_APP)}]));
    assert_eq!(
        at(&theirs, "/spec/ingress/0/from"),
        json!([{"podSelector": at(&proxies, "/spec/podSelector")}])
    );
    assert_eq!(at(&theirs, "/spec/ingress/0/ports"), at(&proxies, "/spec/egress/0/ports"));
    assert_eq!(at(&theirs, "/spec/ingress/0/ports"), json!([{"port": LINK_PORT, "protocol": "TCP"}]));
    let ports = ports(&at(&object("Deployment"), "/spec/template"));
    assert_eq!(ports["link"], LINK_PORT);
    let cluster = json!([{
        "from": [{"namespaceSelector": {}}],
        "ports": [{"port": ports["admin"], "protocol": "TCP"}],
    }]);
    assert_eq!(
        theirs.pointer("/spec/ingress").unwrap().as_array().unwrap()[1..],
        *cluster.as_array().unwrap()
    );
    // Where the API server is differs from cluster to cluster.
    assert_eq!(at(&theirs, "/spec/policyTypes"), json!(["Ingress"]));
    assert_eq!(at(&proxies, "/spec/podSelector"), pods_of(PROXY_APP));
}

#[test]
fn proxies_find_every_operator_by_the_service() {
    let service = object("Service");
    assert_eq!(at(&service, "/metadata/name"), json!(names().operator_service()));
    assert_eq!(at(&service, "/spec/clusterIP"), json!("None"));
    assert_eq!(at(&service, "/spec/publishNotReadyAddresses"), json!(true));
    assert_eq!(at(&service, "/spec/selector"), json!(selected_by(&names(), OPERATOR_APP)));
    assert_eq!(
        (at(&service, "/spec/ports/0/name"), at(&service, "/spec/ports/0/port")),
        (json!("link"), json!(LINK_PORT))
    );
}

#[test]
fn one_of_two_goes_at_a_time_and_they_are_apart() {
    let (deployment, budget) = (object("Deployment"), object("PodDisruptionBudget"));
    assert_eq!(at(&deployment, "/spec/replicas"), json!(2));
    assert_eq!(at(&budget, "/spec/maxUnavailable"), json!(1));
    assert_eq!(at(&budget, "/spec/unhealthyPodEvictionPolicy"), json!("AlwaysAllow"));
    for selector in [
        at(&deployment, "/spec/selector"),
        at(&budget, "/spec/selector"),
        at(&deployment, "/spec/template/spec/topologySpreadConstraints/0/labelSelector"),
    ] {
        assert_eq!(selector, pods_of(OPERATOR_APP));
    }
    let labels = at(&deployment, "/spec/template/metadata/labels");
    for (name, value) in selected_by(&names(), OPERATOR_APP) {
        assert_eq!(labels[&name], value);
    }
}

/// The "restricted" standard is judged by a real API server (tests/cluster); this is what it does not ask for.
#[test]
fn a_pod_has_its_own_token_probes_and_limits() {
    let template = at(&object("Deployment"), "/spec/template");
    // Nobody else gets it by naming the account.
    assert_eq!(at(&object("ServiceAccount"), "/automountServiceAccountToken"), json!(false));
    assert_eq!(at(&template, "/spec/automountServiceAccountToken"), json!(true));
    assert_eq!(at(&template, "/spec/serviceAccountName"), at(&object("ServiceAccount"), "/metadata/name"));
    assert_eq!(at(&template, "/spec/enableServiceLinks"), json!(false));
    let container = at(&template, "/spec/containers/0");
    assert_eq!(at(&container, "/securityContext/readOnlyRootFilesystem"), json!(true));
    for (probe, path) in
        [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(at(&container, &format!("/{probe}/httpGet")), json!({"path": path, "port": "admin"}));
    }
    for member in ["requests/cpu", "requests/memory", "limits/memory"] {
        assert!(at(&container, &format!("/resources/{member}")).is_string());
    }
}
