//! Objects as they were found, sense or no sense.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::check::{Checked, Problem};

/// An object that somebody wrote.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "kept behind an Arc wherever there are many")]
pub enum Observed<T> {
    /// It makes sense.
    Readable(T),
    /// It does not: its rules were skipped, or another version of the resource stored it.
    Unreadable(Unreadable),
}

/// What can be told of an object that makes no sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Name, namespace, generation and age are checked by every API server.
    pub metadata: ObjectMeta,
    /// Which member, e.g. `spec.access.denyNetworks[0]`.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
    /// `spec.enabled`, where it is a boolean: switching off works whatever else is wrong.
    pub enabled: Option<bool>,
    /// `spec.installation`, where it is a text: so that the installation that serves it tells it what is wrong.
    pub installation: Option<String>,
    /// Its status as it stands there. See [`Unreadable::status`].
    pub status: Option<Value>,
}

impl Unreadable {
    /// What was told of it last, if that makes sense: which names it had, for one.
    pub fn status<S: DeserializeOwned>(&self) -> Option<S> {
        self.status.as_ref().and_then(|status| S::deserialize(status).ok())
    }
}

impl<T: DeserializeOwned + Checked> Observed<T> {
    /// Reads an object; `Err` only where there is no metadata to speak of.
    ///
    /// The status takes no part: it is never the only copy of anything, so one that makes no sense is dropped.
    pub fn read(mut value: Value) -> Result<Self, String> {
        let mut read = deserialize::<T>(&value);
        if read.as_ref().is_err_and(|problem| problem.path.starts_with("status")) {
            value.as_object_mut().map(|object| object.remove("status"));
            read = deserialize(&value);
        }
        let Problem { path, problem } = match read.and_then(|object| object.check().map(|()| object)) {
            Ok(object) => return Ok(Self::Readable(object)),
            Err(problem) => problem,
        };
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        let metadata: ObjectMeta =
            serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        if metadata.name.is_none() {
            return Err("metadata.name is missing".to_owned());
        }
        let enabled = value.pointer("/spec/enabled").and_then(Value::as_bool);
        let installation = value.pointer("/spec/installation").and_then(Value::as_str).map(str::to_owned);
        let status = value.get("status").cloned();
        Ok(Self::Unreadable(Unreadable { metadata, path, problem, enabled, installation, status }))
    }
}

fn deserialize<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        Problem { path, problem: error.into_inner().to_string() }
    })
}

impl<T: Resource> Observed<T> {
    /// Its name, namespace, generation, age and annotations.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Readable(object) => object.meta(),
            Self::Unreadable(unreadable) => &unreadable.metadata,
        }
    }
}
