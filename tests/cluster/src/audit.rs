//! What accounts of pods asked of the API server: its audit log.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ClusterError, ControlPlane, TestError};

/// A request that was answered, or a watch that has begun.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// E.g. `patch`.
    pub verb: String,
    /// The group, empty for the core.
    pub group: String,
    /// E.g. `pods`, or `pods/eviction`.
    pub resource: String,
    /// Where, empty for everywhere.
    pub namespace: String,
    /// The name that was asked for, if one was: in the path or by a field selector.
    pub name: String,
    /// HTTP's code.
    pub code: u16,
}

/// A line of the log, as far as it is of interest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl ControlPlane {
    /// What a user has asked until now. Only a control plane of [`ControlPlane::start_audited`] knows.
    pub fn asked(&self, user: &str) -> Result<Vec<Asked>, TestError> {
        let text = std::fs::read_to_string(log(self.folder()))?;
        // The last line may not be whole yet.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines = lines.map(serde_json::from_str::<Line>).collect::<Result<Vec<_>, _>>()?;
        Ok(lines.into_iter().filter(|line| line.user.username == user).map(Asked::from).collect())
    }
}

impl From<Line> for Asked {
    fn from(line: Line) -> Self {
        let ObjectRef { api_group, resource, subresource, namespace, name } = line.object_ref;
        let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
        Self { verb: line.verb, group: api_group, resource, namespace, name, code: line.response_status.code }
    }
}

fn log(folder: &Path) -> PathBuf {
    folder.join("audit.log")
}

/// Writes down what shall be logged, and says so to the API server: requests of accounts, of nobody else.
pub(crate) fn arguments(folder: &Path) -> Result<[String; 2], ClusterError> {
    let policy: Value = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
            {"level": "None"},
        ],
    });
    let path = folder.join("audit-policy");
    std::fs::write(&path, policy.to_string()).map_err(ClusterError::io("writing the audit policy"))?;
    Ok([
        format!("--audit-policy-file={}", path.display()),
        format!("--audit-log-path={}", log(folder).display()),
    ])
}
