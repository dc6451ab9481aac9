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
use serde_json::value::RawValue;

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

/// An object as it is written, whose members are still to be read. What nobody looks at (most of `managedFields`) is passed
/// over.
#[derive(Deserialize)]
struct Written<M> {
    metadata: Metadata,
    spec: Option<M>,
    status: Option<M>,
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

impl<T: Kind> Listed<T> {
    /// Reads an object from its text. Of 100,000 each is read once: only one that makes no sense is looked at again, for
    /// what is wrong with it.
    pub(super) fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        let Written { metadata, spec, status } = serde_json::from_slice::<Written<&RawValue>>(text)?;
        let (about, metadata, told_by) = metadata.parts();
        let spec = spec.map_or("null", RawValue::get);
        let object = match Observed::sensible(about, spec) {
            Ok(object) => object,
            Err(about) => Observed::of(about, &serde_json::from_str::<Shallow>(spec)?.0, None),
        };
        let status = status.and_then(|status| serde_json::from_str(status.get()).ok());
        Ok(Self::of(metadata, object, status, told_by))
    }

    fn of(
        metadata: ObjectMeta,
        object: Observed<T>,
        status: Option<T::Status>,
        told_by: Vec<String>,
    ) -> Self {
        // Where everything was taken out of it, there is none.
        let status = status.filter(|status| *status != T::Status::default());
        Self { metadata, object, status, told_by }
    }
}

impl Metadata {
    /// What is kept with the object, what a watch needs to go on, and who told of its status.
    fn parts(self) -> (About, ObjectMeta, Vec<String>) {
        let Self {
            name,
            namespace,
            resource_version,
            uid,
            generation,
            creation_timestamp: created,
            annotations,
            told_by,
        } = self;
        // kubectl's copy of the whole object is among the others.
        let annotations =
            annotations.retain(|name| name.strip_prefix(GROUP).is_some_and(|rest| rest.starts_with('/')));
        let about = About { uid, generation, created, annotations };
        (about, ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() }, told_by)
    }
}

/// As events bring them, one by one. Only what has no metadata at all is no object; everything else is one, sense or no
/// sense.
impl<'de, T: Kind> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { metadata, spec, status } = Written::<Shallow>::deserialize(deserializer)?;
        let (about, metadata, told_by) = metadata.parts();
        let object = Observed::<T>::of(about, &spec.unwrap_or_default().0, None);
        let status = status.and_then(|status| T::Status::deserialize(status.0).ok());
        Ok(Self::of(metadata, object, status, told_by))
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

    /// As a list brings it, and as an event does: both are the same.
    pub(in crate::observe) fn listed(value: Value) -> Listed<RemoteInstance> {
        let text = value.to_string();
        let (listed, told): (_, Listed<RemoteInstance>) =
            (Listed::read(text.as_bytes()).unwrap(), serde_json::from_value(value).unwrap());
        assert_eq!(format!("{listed:?}"), format!("{told:?}"));
        listed
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
        let kube::api::WatchEvent::Added(told) = event else { panic!("{event:?}") };
        for listed in [told, Listed::read(text.as_bytes()).unwrap()] {
            let Observed::Unreadable(nonsense) = listed.object else { panic!("readable") };
            assert_eq!((nonsense.path.as_str(), nonsense.enabled), ("spec.hostname", Some(true)));
            assert_eq!(listed.status.unwrap().url.as_deref(), Some("https://a"));
        }
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
