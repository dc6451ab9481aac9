//! Secrets of the installation on the API server, each by its name. None is ever listed or watched: the operator's rights
//! end at these names.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::KeysError;
use crate::names::{FIELD_MANAGER, INSTALLATION_LABEL, Names};

/// For one call.
const CALL: Duration = Duration::from_secs(10);
/// What the API server says when somebody else was faster: the object is there already, or has changed.
const CONFLICT: u16 = 409;

/// What is in a Secret.
pub(crate) type Data = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// A Secret as it was read.
pub(crate) struct Stored {
    name: String,
    version: String,
    pub(crate) data: Data,
}

/// The installation's Secrets.
pub(crate) struct Secrets {
    api: Api<Secret>,
    installation: String,
}

impl Secrets {
    pub(crate) fn new(client: Client, names: &Names) -> Self {
        Self { api: Api::namespaced(client, &names.namespace), installation: names.installation.clone() }
    }

    /// Reads a Secret, and makes it where there is none.
    pub(crate) async fn get_or_create(
        &self,
        name: &str,
        make: impl Fn() -> Result<Data, KeysError>,
    ) -> Result<Stored, KeysError> {
        if let Some(secret) = call(name, self.api.get_opt(name)).await? {
            return Ok(stored(name, secret));
        }
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some([(INSTALLATION_LABEL.to_owned(), self.installation.clone())].into()),
                ..ObjectMeta::default()
            },
            data: Some(make()?.into_iter().map(|(key, value)| (key, ByteString(value.to_vec()))).collect()),
            ..Secret::default()
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match call(name, self.api.create(&params, &secret)).await {
            Ok(secret) => Ok(stored(name, secret)),
            // Another operator made it meanwhile: theirs is the one.
            Err(error) if error.is_conflict() => Ok(stored(name, call(name, self.api.get(name)).await?)),
            Err(error) => Err(error),
        }
    }

    /// Puts other data into a Secret that is still as it was read. `None`: it is not.
    pub(crate) async fn replace(&self, before: &Stored, data: &Data) -> Result<Option<Stored>, KeysError> {
        let gone = before.data.keys().filter(|key| !data.contains_key(*key));
        let mut changes: Map<String, Value> = gone.map(|key| (key.clone(), Value::Null)).collect();
        for (key, value) in data {
            changes.insert(key.clone(), json!(ByteString(value.to_vec())));
        }
        let patch = json!({"metadata": {"resourceVersion": before.version}, "data": changes});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match call(&before.name, self.api.patch(&before.name, &params, &Patch::Merge(patch))).await {
            Ok(secret) => Ok(Some(stored(&before.name, secret))),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn call<T>(name: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, KeysError> {
    match timeout(CALL, call).await {
        Ok(answer) => answer.map_err(|source| KeysError::Api { name: name.to_owned(), source }),
        Err(_) => Err(KeysError::NoAnswer { name: name.to_owned() }),
    }
}

fn stored(name: &str, secret: Secret) -> Stored {
    let data = secret.data.unwrap_or_default();
    Stored {
        name: name.to_owned(),
        version: secret.metadata.resource_version.unwrap_or_default(),
        data: data.into_iter().map(|(key, ByteString(value))| (key, Zeroizing::new(value))).collect(),
    }
}

impl Stored {
    /// One that is on no API server.
    #[cfg(test)]
    pub(crate) fn of(data: Data) -> Self {
        Self { name: "test".to_owned(), version: "1".to_owned(), data }
    }

    /// The Secret lacks something, or has nonsense in it.
    pub(crate) fn wrong(&self, key: &str, reason: &str) -> KeysError {
        KeysError::Content { name: self.name.clone(), key: key.to_owned(), reason: reason.to_owned() }
    }

    pub(crate) fn secret_32(&self, key: &str) -> Result<Zeroizing<[u8; 32]>, KeysError> {
        let value = self.data.get(key).ok_or_else(|| self.wrong(key, "is missing"))?;
        let value = <[u8; 32]>::try_from(value.as_slice());
        value.map(Zeroizing::new).map_err(|_| self.wrong(key, "is not 32 bytes long"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<Zeroizing<String>>, KeysError> {
        let Some(value) = self.data.get(key) else { return Ok(None) };
        let text = String::from_utf8(value.to_vec()).map_err(|_| self.wrong(key, "is no text"))?;
        Ok(Some(Zeroizing::new(text)))
    }

    pub(crate) fn needed_text(&self, key: &str) -> Result<Zeroizing<String>, KeysError> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }
}

impl KeysError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.code == CONFLICT)
    }
}

/// A text, as a Secret's value.
pub(crate) fn value(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}
