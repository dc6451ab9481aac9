//! Everything the workload consists of, made from the settings. Pure.

use std::fmt::Write as _;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::settings::InstallationSettings;
use super::{disruption, network_policy, service_account, services, stateful_set};
use crate::names::Names;

/// Annotation with a hash of what was applied: what was taken out of the settings must be taken out of the object, too,
/// and that cannot be seen in the rest of it. Only on objects themselves: in the pods' template it would restart them.
const APPLIED_ANNOTATION: &str = "latchkey.dev/applied";
/// How much of the hash is kept.
const HASH_BYTES: usize = 8;

/// An object that shall be there.
#[derive(Debug, Clone)]
pub(crate) struct WantedObject {
    pub(crate) kind: ObjectKind,
    /// As it is applied.
    pub(crate) object: Value,
}

/// Which of the objects.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ObjectKind {
    pub(crate) resource: ApiResource,
    pub(crate) name: String,
}

impl std::fmt::Display for ObjectKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.resource.kind, self.name)
    }
}

/// All of them, in the order in which they need each other.
pub(crate) fn objects(
    names: &Names,
    settings: &InstallationSettings,
) -> Result<Vec<WantedObject>, serde_json::Error> {
    let proxies = &settings.proxies;
    Ok(vec![
        wanted(&service_account::service_account(names))?,
        wanted(&network_policy::network_policy(names, &proxies.scrapers_from))?,
        wanted(&services::peers_service(names))?,
        wanted(&services::public_service(names, &proxies.service))?,
        wanted(&disruption::disruption_budget(names))?,
        wanted(&stateful_set::stateful_set(names, settings))?,
    ])
}

fn wanted<K>(object: &K) -> Result<WantedObject, serde_json::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize,
{
    let name = object.meta().name.clone().unwrap_or_default();
    let resource = ApiResource::erase::<K>(&());
    let mut object = serde_json::to_value(object)?;
    let hash = hash(&object);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(APPLIED_ANNOTATION.to_owned(), hash.into());
        }
    }
    Ok(WantedObject { kind: ObjectKind { resource, name }, object })
}

fn hash(object: &Value) -> String {
    let digest = Sha256::digest(object.to_string());
    let mut digits = String::new();
    for byte in digest.iter().take(HASH_BYTES) {
        // Writing into a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// The kinds alone, to watch them before there are settings.
pub(crate) fn kinds(names: &Names) -> Vec<ObjectKind> {
    use k8s_openapi::api::apps::v1::StatefulSet;
    use k8s_openapi::api::core::v1::{Service, ServiceAccount};
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use k8s_openapi::api::policy::v1::PodDisruptionBudget;

    let proxies = || names.proxies();
    vec![
        ObjectKind { resource: ApiResource::erase::<ServiceAccount>(&()), name: proxies() },
        ObjectKind { resource: ApiResource::erase::<NetworkPolicy>(&()), name: proxies() },
        ObjectKind { resource: ApiResource::erase::<Service>(&()), name: names.proxy_peers() },
        ObjectKind { resource: ApiResource::erase::<Service>(&()), name: proxies() },
        ObjectKind { resource: ApiResource::erase::<PodDisruptionBudget>(&()), name: proxies() },
        ObjectKind { resource: ApiResource::erase::<StatefulSet>(&()), name: proxies() },
    ]
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
