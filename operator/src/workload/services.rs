//! The two Services: what the public reaches, and by which the pods have names of their own.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{PROXY_APP, metadata, selected_by};
use super::proxy_settings::{PublicService, ServiceKind, TrafficPolicy};
use super::stateful_set::{ADMIN, ADMIN_PORT, PUBLIC};
use crate::names::Names;

/// Visitors and agents arrive here.
pub(crate) fn public_service(names: &Names, settings: &PublicService) -> Service {
    let kind = match settings.kind {
        ServiceKind::LoadBalancer => "LoadBalancer",
        ServiceKind::NodePort => "NodePort",
        ServiceKind::ClusterIp => "ClusterIP",
    };
    let policy = match settings.external_traffic_policy {
        TrafficPolicy::Local => "Local",
        TrafficPolicy::Cluster => "Cluster",
    };
    // The API server refuses what does not go with the type.
    let is_outside = settings.kind != ServiceKind::ClusterIp;
    let has_balancer = settings.kind == ServiceKind::LoadBalancer;
    let mut metadata = metadata(names, names.proxies());
    if !settings.annotations.is_empty() {
        metadata.annotations = Some(settings.annotations.clone());
    }
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            selector: Some(selected_by(names, PROXY_APP)),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            external_traffic_policy: is_outside.then(|| policy.to_owned()),
            load_balancer_class: settings.load_balancer_class.clone().filter(|_| has_balancer),
            ports: Some(vec![port(PUBLIC, i32::from(settings.port))]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Gives each pod a name in DNS, and metrics a place to be asked for. Also pods that are not ready: they are part of it.
pub(crate) fn peers_service(names: &Names) -> Service {
    Service {
        metadata: metadata(names, names.proxy_peers()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(selected_by(names, PROXY_APP)),
            publish_not_ready_addresses: Some(true),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ports: Some(vec![port(ADMIN, ADMIN_PORT)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
