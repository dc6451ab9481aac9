//! The `NetworkPolicy`: what faces the internet reaches the operator and DNS, and nothing else of the cluster.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{OPERATOR_APP, PROXY_APP, metadata, selector};
use super::stateful_set::{ADMIN_PORT, PUBLIC_PORT};
use crate::names::{LINK_PORT, Names};

/// Where DNS is asked. Policies are judged after a Service's address was translated, and some clusters' servers listen on
/// 5353.
const DNS_PORTS: [i32; 2] = [53, 5353];
/// What a namespace's name is as a label: the API server sets it.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// The `NetworkPolicy`. Probes come from the node, which no policy keeps away.
pub(crate) fn network_policy(names: &Names, scrapers_from: &[String]) -> NetworkPolicy {
    let admin = scrapers_from.iter().map(|namespace| NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([(NAMESPACE_LABEL.to_owned(), namespace.clone())].into()),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    });
    let operator = NetworkPolicyPeer {
        pod_selector: Some(selector(names, OPERATOR_APP)),
        ..NetworkPolicyPeer::default()
    };
    // Never empty: that would mean everybody.
    let admin: Vec<_> = std::iter::once(operator.clone()).chain(admin).collect();
    let dns = DNS_PORTS.iter().flat_map(|number| ["UDP", "TCP"].map(|protocol| port(protocol, *number)));
    NetworkPolicy {
        metadata: metadata(names, names.proxies()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(names, PROXY_APP)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![
                // The public.
                NetworkPolicyIngressRule { ports: Some(vec![port("TCP", PUBLIC_PORT)]), from: None },
                NetworkPolicyIngressRule { ports: Some(vec![port("TCP", ADMIN_PORT)]), from: Some(admin) },
            ]),
            egress: Some(vec![
                NetworkPolicyEgressRule {
                    ports: Some(vec![port("TCP", i32::from(LINK_PORT))]),
                    to: Some(vec![operator]),
                },
                NetworkPolicyEgressRule { ports: Some(dns.collect()), to: None },
            ]),
        }),
    }
}

fn port(protocol: &str, number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(number)),
        ..NetworkPolicyPort::default()
    }
}
