//! The proxies' `StatefulSet`.
//!
//! `OnDelete`: who may be replaced, and when, is decided in [`super::roll`], which looks at tunnels and routes;
//! Kubernetes would look at readiness alone. `Parallel`: pods do not wait for each other when they start.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::amount::Amount;
use super::labels::{PROXY_APP, metadata, selected_by, selector};
use super::proxy_settings::{self, ImagePullPolicy, ProxySettings, TaintEffect, TolerationOperator};
use super::settings::InstallationSettings;
use crate::names::{LINK_PORT, Names};

/// The container's name.
const CONTAINER: &str = "proxy";
/// Where visitors and agents arrive. Above 1023, so that no capability is needed.
pub(crate) const PUBLIC_PORT: i32 = 8443;
/// Where probes and metrics are.
pub(crate) const ADMIN_PORT: i32 = 9100;
/// Names of the two ports, by which services find them.
pub(crate) const PUBLIC: &str = "public";
pub(crate) const ADMIN: &str = "admin";
/// Arguments that are set here.
pub(crate) const OWN_ARGUMENTS: &[&str] = &[
    "--listen",
    "--admin",
    "--operator",
    "--operator-tls",
    "--replica",
    "--table-cache",
    "--api-tls",
    "--grace",
    "--tunnel-address",
    "--log-format",
];

/// Arguments that do not go with an operator: a proxy with one of them would not start.
pub(crate) const FOREIGN_ARGUMENTS: &[&str] = &["--routes", "--fernet-keys", "--operator-name"];

/// `nonroot` of distroless images.
const USER: i64 = 65532;
/// Between the end of the grace and the kernel's: for the last words.
const LAST_WORDS: i64 = 30;
const CERTIFICATES_FOLDER: &str = "/etc/latchkey/certificates";
const TABLE_CACHE_FOLDER: &str = "/var/cache/latchkey";
const TABLE_CACHE_FILE: &str = "table";
/// A proxy that does not answer is started again after a minute. It may be busy; it is never started again because it is
/// not ready.
const LIVENESS_EVERY: i32 = 10;
const LIVENESS_FAILURES: i32 = 6;
/// A proxy that says it is not ready gets no new visitors some seconds later.
const READINESS_EVERY: i32 = 2;
const READINESS_FAILURES: i32 = 2;
/// To listen: seconds. The table may come later.
const STARTUP_FAILURES: i32 = 60;
const PROBE_TIMEOUT: i32 = 5;
/// Who may read the certificates' Secret in the pod: the user's group.
const CERTIFICATES_MODE: i32 = 0o440;

/// The `StatefulSet`.
pub(crate) fn stateful_set(names: &Names, settings: &InstallationSettings) -> StatefulSet {
    let proxies = &settings.proxies;
    StatefulSet {
        metadata: metadata(names, names.proxies()),
        spec: StatefulSetSpec {
            replicas: Some(proxies.replicas),
            service_name: Some(names.proxy_peers()),
            selector: selector(names, PROXY_APP),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            template: template(names, settings),
            ..StatefulSetSpec::default()
        },
        status: None,
    }
}

fn template(names: &Names, settings: &InstallationSettings) -> PodTemplateSpec {
    let mut labels = selected_by(names, PROXY_APP);
    labels.insert("app.kubernetes.io/component".to_owned(), "proxy".to_owned());
    labels.insert("app.kubernetes.io/part-of".to_owned(), "latchkey".to_owned());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(
                [("kubectl.kubernetes.io/default-container".to_owned(), CONTAINER.to_owned())].into(),
            ),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(names, settings)),
    }
}

fn pod(names: &Names, settings: &InstallationSettings) -> PodSpec {
    let proxies = &settings.proxies;
    let secrets = proxies.image_pull_secrets.iter();
    let secrets: Vec<_> = secrets.map(|name| LocalObjectReference { name: name.clone() }).collect();
    let tolerations: Vec<_> = proxies.tolerations.iter().map(toleration).collect();
    PodSpec {
        service_account_name: Some(names.proxies()),
        // Nothing that faces the internet holds a credential of the cluster, nor learns what else is in it.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: Some(i64::from(proxies.grace_seconds) + LAST_WORDS),
        image_pull_secrets: some(secrets),
        node_selector: (!proxies.node_selector.is_empty()).then(|| proxies.node_selector.clone()),
        tolerations: some(tolerations),
        priority_class_name: proxies.priority_class_name.clone(),
        topology_spread_constraints: Some(
            ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(|key| spread(names, key)).into(),
        ),
        containers: vec![container(names, settings)],
        volumes: Some(vec![
            Volume {
                name: "certificates".to_owned(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(names.proxy_certificates()),
                    default_mode: Some(CERTIFICATES_MODE),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            },
            Volume {
                name: "table-cache".to_owned(),
                empty_dir: Some(EmptyDirVolumeSource {
                    medium: Some("Memory".to_owned()),
                    size_limit: Some(quantity(&proxies.table_cache)),
                    ..EmptyDirVolumeSource::default()
                }),
                ..Volume::default()
            },
        ]),
        ..PodSpec::default()
    }
}

/// Apart from each other where that is possible, and somewhere in any case.
fn spread(names: &Names, key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector(names, PROXY_APP)),
        ..TopologySpreadConstraint::default()
    }
}

fn container(names: &Names, settings: &InstallationSettings) -> Container {
    let proxies = &settings.proxies;
    let port = |name: &str, container_port| ContainerPort {
        name: Some(name.to_owned()),
        container_port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, mount_path: &str, read_only: Option<bool>| VolumeMount {
        name: name.to_owned(),
        mount_path: mount_path.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(proxies.image.clone()),
        image_pull_policy: proxies.image_pull_policy.map(|policy| {
            let policy = match policy {
                ImagePullPolicy::Always => "Always",
                ImagePullPolicy::IfNotPresent => "IfNotPresent",
                ImagePullPolicy::Never => "Never",
            };
            policy.to_owned()
        }),
        args: Some(arguments(names, settings)),
        env: Some(vec![EnvVar {
            name: "POD_NAME".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: "metadata.name".to_owned(),
                    ..ObjectFieldSelector::default()
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        }]),
        ports: Some(vec![port(PUBLIC, PUBLIC_PORT), port(ADMIN, ADMIN_PORT)]),
        resources: Some(resources(proxies)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        startup_probe: Some(probe("/livez", READINESS_EVERY, STARTUP_FAILURES)),
        liveness_probe: Some(probe("/livez", LIVENESS_EVERY, LIVENESS_FAILURES)),
        readiness_probe: Some(probe("/readyz", READINESS_EVERY, READINESS_FAILURES)),
        volume_mounts: Some(vec![
            mount("certificates", CERTIFICATES_FOLDER, Some(true)),
            mount("table-cache", TABLE_CACHE_FOLDER, None),
        ]),
        ..Container::default()
    }
}

fn arguments(names: &Names, settings: &InstallationSettings) -> Vec<String> {
    let (operator, namespace) = (names.operator_service(), &names.namespace);
    let mut arguments = vec![
        format!("--listen=[::]:{PUBLIC_PORT}"),
        format!("--admin=[::]:{ADMIN_PORT}"),
        format!("--operator={operator}.{namespace}.svc:{LINK_PORT}"),
        format!("--operator-tls={CERTIFICATES_FOLDER}"),
        "--replica=$(POD_NAME)".to_owned(),
        format!("--table-cache={TABLE_CACHE_FOLDER}/{TABLE_CACHE_FILE}"),
        format!("--api-tls={CERTIFICATES_FOLDER}"),
        format!("--grace={}", settings.proxies.grace_seconds),
        "--log-format=json".to_owned(),
    ];
    arguments
        .extend(settings.spec.tunnel_address.iter().map(|address| format!("--tunnel-address={address}")));
    arguments.extend(settings.proxies.arguments.iter().cloned());
    arguments
}

fn probe(path: &str, every: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ADMIN.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(every),
        failure_threshold: Some(failures),
        timeout_seconds: Some(PROBE_TIMEOUT),
        ..Probe::default()
    }
}

fn resources(proxies: &ProxySettings) -> ResourceRequirements {
    let quantities = |amounts: &BTreeMap<String, Amount>| {
        let quantities = amounts.iter().map(|(name, amount)| (name.clone(), quantity(amount)));
        (!amounts.is_empty()).then(|| quantities.collect())
    };
    ResourceRequirements {
        requests: quantities(&proxies.resources.requests),
        limits: quantities(&proxies.resources.limits),
        ..ResourceRequirements::default()
    }
}

fn toleration(toleration: &proxy_settings::Toleration) -> Toleration {
    let operator = toleration.operator.map(|operator| match operator {
        TolerationOperator::Exists => "Exists",
        TolerationOperator::Equal => "Equal",
    });
    let effect = toleration.effect.map(|effect| match effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    });
    Toleration {
        key: toleration.key.clone(),
        operator: operator.map(str::to_owned),
        value: toleration.value.clone(),
        effect: effect.map(str::to_owned),
        toleration_seconds: toleration.toleration_seconds,
    }
}

fn quantity(amount: &Amount) -> Quantity {
    Quantity(amount.as_str().to_owned())
}

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}
