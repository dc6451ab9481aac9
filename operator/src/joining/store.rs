//! Objects in the API server, as far as joining needs them: instances' metadata, and Secrets that are written and never
//! read.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource as _};
use resources::{API_VERSION, RemoteInstance};
use route_table::InstanceId;
use serde_json::{Map, Value, json};

use crate::names::{FIELD_MANAGER, INSTALLATION_LABEL, Names};

/// Key of the Secret that the bundle is under.
pub const BUNDLE_KEY: &str = "bundle";

/// Who writes what is of joining.
pub(super) struct Store {
    client: Client,
    installation: String,
    recorder: Recorder,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Metadata of an instance.
pub(super) type Meta = PartialObjectMeta<RemoteInstance>;

/// Namespace and name.
fn parts(id: &InstanceId) -> (&str, &str) {
    id.as_str().split_once('/').unwrap_or_default()
}

/// The Secret with an instance's bundle.
pub fn secret_name(id: &InstanceId) -> String {
    format!("{}-join", parts(id).1)
}

impl Store {
    pub(super) fn new(client: Client, names: &Names, identity: &str) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, installation: names.installation.clone(), recorder }
    }

    /// An instance as it is now, if there is one.
    pub(super) async fn get(&self, id: &InstanceId) -> Result<Option<Meta>, kube::Error> {
        let (namespace, name) = parts(id);
        Api::<RemoteInstance>::namespaced(self.client.clone(), namespace).get_metadata_opt(name).await
    }

    /// Sets annotations, or removes them, on the instance as it was read. `None`: it has changed since.
    pub(super) async fn annotate(
        &self,
        id: &InstanceId,
        meta: &Meta,
        changes: impl IntoIterator<Item = (&'static str, Option<String>)>,
    ) -> Result<Option<Meta>, kube::Error> {
        let (namespace, name) = parts(id);
        let annotations: Map<String, Value> =
            changes.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": "RemoteInstance",
            "metadata": {"resourceVersion": meta.metadata.resource_version, "annotations": annotations},
        });
        let api = Api::<RemoteInstance>::namespaced(self.client.clone(), namespace);
        match api.patch_metadata(name, &parameters(), &Patch::Merge(patch)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an instance's bundle. `false`: there is a Secret of that name. It stays, for whoever may change a Secret is
    /// told all that is in it, and so may we not.
    pub(super) async fn write_bundle(
        &self,
        id: &InstanceId,
        meta: &Meta,
        bundle: &str,
    ) -> Result<bool, kube::Error> {
        let (namespace, _) = parts(id);
        let name = secret_name(id);
        let owners = json!([{
            "apiVersion": API_VERSION,
            "kind": "RemoteInstance",
            "name": meta.metadata.name,
            "uid": meta.metadata.uid,
        }]);
        let data = json!({BUNDLE_KEY: BASE64_STANDARD.encode(bundle)});
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "labels": {INSTALLATION_LABEL: self.installation},
                "ownerReferences": owners,
            },
            "type": "Opaque",
            "data": data,
        });
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let secret: Secret = serde_json::from_value(secret).map_err(kube::Error::SerdeError)?;
        let post = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&post, &secret).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells the instance's owner. An event that is not heard is a line in the log: nothing waits for it.
    pub(super) async fn tell(&self, meta: &Meta, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Join".to_owned(),
            secondary: None,
        };
        let regarding = ObjectReference {
            resource_version: None,
            api_version: Some(API_VERSION.to_owned()),
            kind: Some("RemoteInstance".to_owned()),
            ..meta.object_ref(&())
        };
        if let Err(error) = self.recorder.publish(&event, &regarding).await {
            tracing::warn!(%error, reason, "an event could not be told");
        }
    }
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
