//! Objects as they were found, sense or no sense.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// An object that somebody wrote.
#[derive(Debug, Clone, PartialEq)]
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
}

impl<T: DeserializeOwned> Observed<T> {
    /// Reads an object; `Err` only where there is no metadata to speak of.
    pub fn read(value: Value) -> Result<Self, String> {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(object) => return Ok(Self::Readable(object)),
            Err(error) => error,
        };
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        let metadata: ObjectMeta =
            serde_json::from_value(metadata).map_err(|error| format!("metadata: {error}"))?;
        if metadata.name.is_none() {
            return Err("metadata.name is missing".to_owned());
        }
        let enabled = value.pointer("/spec/enabled").and_then(Value::as_bool);
        let path = error.path().to_string();
        Ok(Self::Unreadable(Unreadable { metadata, path, problem: error.into_inner().to_string(), enabled }))
    }
}
