//! An object as a watch hands it over: read once, without what nobody here looks at.

use std::borrow::Cow;
use std::fmt::Debug;
use std::hash::Hash;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use planner::Subject;
use resources::{About, Annotations, GROUP, Observed, Parts, RemoteInstance, Timestamp, VersionBlock};
use route_table::InstanceId;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::digest::Said;
use super::sharing::Shareable;
use crate::names::STATUS_MANAGERS;
use crate::shallow::Shallow;

/// A kind of object that is observed.
pub(super) trait Kind:
    Resource<DynamicType = ()>
    + Parts<Spec: Send + Sync, Status: Said + Shareable + Default + Send + Sync>
    + Debug
    + Clone
    + PartialEq
    + Send
    + Sync
    + 'static
{
    /// What its objects are called.
    type Key: Ord + Hash + Clone + Debug + Send + Sync + 'static;

    /// What an object is called; `None` where that is no name, which an API server does not let happen.
    fn key(metadata: &ObjectMeta) -> Option<Self::Key>;
    /// The same, of whatever kind it is.
    fn subject(key: Self::Key) -> Subject;
}

impl Kind for RemoteInstance {
    type Key = InstanceId;

    fn key(metadata: &ObjectMeta) -> Option<InstanceId> {
        format!("{}/{}", metadata.namespace.as_ref()?, metadata.name.as_ref()?).parse().ok()
    }

    fn subject(key: InstanceId) -> Subject {
        Subject::Instance(key)
    }
}

impl Kind for VersionBlock {
    type Key = String;

    fn key(metadata: &ObjectMeta) -> Option<String> {
        metadata.name.clone()
    }

    fn subject(key: String) -> Subject {
        Subject::Block(key)
    }
}

/// An object as a watch hands it over.
#[derive(Debug, Clone)]
pub(super) struct Listed<T: Kind> {
    /// Its metadata without anything but name, namespace and version: what a watch needs to go on.
    metadata: ObjectMeta,
    /// What it says, without its status.
    pub(super) object: Observed<T>,
    /// Its status, if that makes sense and says anything.
    pub(super) status: Option<T::Status>,
    /// The installations' field managers that own something of the status.
    pub(super) told_by: Vec<String>,
}

impl<T: Kind> Listed<T> {
    /// What it is called.
    pub(super) fn key(&self) -> Option<T::Key> {
        T::key(&self.metadata)
    }

    /// Its version, as a number that rises with every write. The API promises that it is one since 1.35, and it always
    /// was.
    pub(super) fn revision(&self) -> u64 {
        revision(&self.metadata)
    }
}

/// The version in an object's metadata, as a number.
fn revision(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// An object as it is written. What nobody looks at (most of `managedFields`, which is larger than all that is kept) is
/// passed over without being read.
#[derive(Deserialize)]
struct Written {
    metadata: Metadata,
    #[serde(default)]
    spec: Shallow,
    status: Option<Shallow>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    uid: Option<Box<str>>,
    generation: Option<i64>,
    creation_timestamp: Option<Timestamp>,
    #[serde(default)]
    annotations: Annotations,
    #[serde(default, rename = "managedFields", deserialize_with = "told_by")]
    told_by: Vec<String>,
}

/// Who owns something of an object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manager<'a> {
    #[serde(borrow, default)]
    manager: Cow<'a, str>,
    fields_v1: Option<Fields>,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "f:status")]
    status: Option<IgnoredAny>,
}

/// Which installations have told something of the status.
fn told_by<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let managers = Vec::<Manager<'_>>::deserialize(deserializer)?.into_iter();
    let told = managers.filter(|manager| {
        let has_told = manager.fields_v1.as_ref().is_some_and(|fields| fields.status.is_some());
        has_told && manager.manager.starts_with(STATUS_MANAGERS)
    });
    Ok(told.map(|manager| manager.manager.into_owned()).collect())
}

impl<'de, T: Kind> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Only what has no metadata at all is no object; everything else is one, sense or no sense.
        let Written { metadata, spec, status } = Written::deserialize(deserializer)?;
        let Metadata {
            name,
            namespace,
            resource_version,
            uid,
            generation,
            creation_timestamp: created,
            annotations,
            told_by,
        } = metadata;
        // kubectl's copy of the whole object is among the others.
        let annotations =
            annotations.retain(|name| name.strip_prefix(GROUP).is_some_and(|rest| rest.starts_with('/')));
        let about = About { uid, generation, created, annotations };
        let mut object = Observed::<T>::of(about, &spec.0, status.map(|status| status.0));
        let status = match &mut object {
            Observed::Readable(object) => object.status.take().map(|status| *status),
            Observed::Unreadable(nonsense) => {
                let status = nonsense.status();
                nonsense.status = None;
                status
            }
        };
        let metadata = ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() };
        // Where everything was taken out of it, there is none.
        let status = status.filter(|status| *status != T::Status::default());
        Ok(Self { metadata, object, status, told_by })
    }
}

impl<T: Kind> Resource for Listed<T> {
    type DynamicType = ();
    type Scope = T::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        T::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        T::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        T::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(in crate::observe) fn listed(value: Value) -> Listed<RemoteInstance> {
        serde_json::from_value(value).unwrap()
    }

    pub(in crate::observe) fn instance(name: &str, version: u64, spec: &Value, status: &Value) -> Value {
        json!({
            "apiVersion": "latchkey.dev/v1alpha1", "kind": "RemoteInstance",
            "metadata": {
                "name": name, "namespace": "homes", "uid": format!("uid-of-{name}"), "generation": 3,
                "resourceVersion": version.to_string(),
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                    "latchkey.dev/agent-keys": "00",
                    "latchkey.development/other": "1",
                },
                "managedFields": [
                    {"manager": "kubectl", "fieldsV1": {"f:spec": {}}},
                    {"manager": "latchkey-operator-status/here", "fieldsV1": {"f:status": {"f:url": {}}}},
                    {"manager": "latchkey-operator-status/there", "fieldsV1": {}},
                ],
            },
            "spec": spec, "status": status,
        })
    }

    #[test]
    fn only_what_somebody_looks_at_is_kept() {
        let listed = listed(instance("lake", 7, &json!({"enabled": true}), &json!({"url": "https://a"})));
        assert_eq!(listed.key().unwrap().as_str(), "homes/lake");
        assert_eq!(listed.revision(), 7);
        assert_eq!(listed.status.unwrap().url.as_deref(), Some("https://a"));
        let Observed::Readable(object) = listed.object else { panic!("unreadable") };
        assert!(object.spec.enabled && object.status.is_none());
        let kept = json!({
            "uid": "uid-of-lake", "generation": 3, "annotations": {"latchkey.dev/agent-keys": "00"},
        });
        assert_eq!(object.about, serde_json::from_value(kept).unwrap());
    }

    #[test]
    fn nonsense_is_an_object_with_a_status_like_any_other() {
        let listed = listed(instance("lake", 7, &json!({"tunnels": "many"}), &json!({"url": "https://a"})));
        assert_eq!((listed.key().unwrap().as_str(), listed.revision()), ("homes/lake", 7));
        assert_eq!(listed.status.unwrap().url.as_deref(), Some("https://a"));
        let Observed::Unreadable(nonsense) = listed.object else { panic!("readable") };
        assert_eq!((nonsense.path.as_str(), nonsense.status), ("spec.tunnels", None));
    }

    #[test]
    fn what_is_nested_without_end_is_nonsense_and_no_end_of_the_watch() {
        let deep = format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000));
        let text =
            instance("lake", 7, &json!({"enabled": true, "hostname": "DEEP"}), &json!({"url": "https://a"}));
        let text = text.to_string().replace(r#""DEEP""#, &deep);
        let event = format!(r#"{{"type": "ADDED", "object": {text}}}"#);
        let event: kube::api::WatchEvent<Listed<RemoteInstance>> = serde_json::from_str(&event).unwrap();
        let kube::api::WatchEvent::Added(listed) = event else { panic!("{event:?}") };
        let Observed::Unreadable(nonsense) = listed.object else { panic!("readable") };
        assert_eq!((nonsense.path.as_str(), nonsense.enabled), ("spec.hostname", Some(true)));
        assert_eq!(listed.status.unwrap().url.as_deref(), Some("https://a"));
    }

    #[test]
    fn who_told_is_known_and_an_empty_status_is_none() {
        let told = listed(instance("lake", 7, &json!({}), &json!({"url": "https://a"})));
        assert_eq!(told.told_by, ["latchkey-operator-status/here"]);
        for empty in [json!({}), json!(null)] {
            assert_eq!(listed(instance("lake", 7, &json!({}), &empty)).status, None);
        }
    }

    #[test]
    fn a_status_without_sense_is_none() {
        let listed = listed(instance("lake", 7, &json!({}), &json!({"hostnames": 7})));
        assert!(matches!(listed.object, Observed::Readable(_)));
        assert_eq!(listed.status, None);
    }
}
