//! What a running installation tells whoever looks: the document that `latchkey up` and the operator serve under
//! [`STATUS_PATH`], and that `latchkey status` shows. Nothing secret is in it.

#![forbid(unsafe_code)]

mod operator;
mod selection;

use resources::{Condition, RemoteInstanceStatus, condition::Truth};
use serde::{Deserialize, Serialize};

pub use operator::{Counts, OperatorPart, Phase, ProxyRow, Role, Roll};
pub use selection::{MOST_ROWS, ROWS, Selection, SelectionError};

/// Where it is served.
pub const STATUS_PATH: &str = "/status";

/// What is known of an installation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Board {
    /// The folder of manifests, where they are in one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub folder: String,
    /// Where visitors and agents arrive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<String>,
    /// The installation's domain.
    pub domain: String,
    /// The revision of the routes in force.
    pub revision: u64,
    /// Instances of the installation, by name: every one, but for what an operator's part says.
    pub instances: Vec<Row>,
    /// What is wrong with what it was told to do, one line each; the last good plan goes on.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What only an operator knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorPart>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `namespace/name`.
    pub instance: String,
    /// Is its tunnel up at this moment?
    pub connected: bool,
    /// As in the resource.
    pub status: RemoteInstanceStatus,
    /// What the agent in this process hands visitors to, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetRow>,
}

/// What an agent hands visitors to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRow {
    /// As the annotation says it.
    pub address: String,
    /// Why it cannot be used or does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Board {
    /// Is everything as it should be: every instance, and every proxy where there is an operator?
    pub fn all_ready(&self) -> bool {
        self.problems.is_empty()
            && self.instances.iter().all(Row::is_ready)
            && self.operator.as_ref().is_none_or(OperatorPart::is_well)
    }
}

impl Row {
    /// Is it as its owner wants it? The resource is ready whether or not somebody's box is switched on; where this
    /// process runs the agent itself, nothing but a tunnel and a target that answers will do.
    pub fn is_ready(&self) -> bool {
        is_ready(&self.status)
            && self.target.as_ref().is_none_or(|target| self.connected && target.problem.is_none())
    }

    /// What it says about being ready.
    pub fn ready(&self) -> Option<&Condition> {
        ready(&self.status)
    }

    /// The fingerprint as Chromium shows it: 64 hex digits.
    pub fn fingerprint(&self) -> Option<&str> {
        self.status.certificate.as_ref().map(|certificate| certificate.fingerprint_sha256.as_str())
    }
}

/// Is the resource ready?
pub fn is_ready(status: &RemoteInstanceStatus) -> bool {
    ready(status).is_some_and(|ready| ready.status == Truth::True)
}

/// What a resource says about being ready.
pub fn ready(status: &RemoteInstanceStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.kind == "Ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_does_not_answer_is_not_ready() {
        let ready = Condition {
            kind: "Ready".to_owned().into(),
            status: Truth::True,
            reason: "Serving".to_owned().into(),
            message: String::new().into(),
            last_transition_time: "2026-11-21T09:00:00Z".parse().unwrap(),
            observed_generation: Some(1),
        };
        let status =
            RemoteInstanceStatus { conditions: vec![ready].into(), ..RemoteInstanceStatus::default() };
        let target = Some(TargetRow { address: "page".to_owned(), problem: None });
        let mut row = Row { instance: "homes/lake".to_owned(), connected: true, status, target };
        assert!(row.is_ready());
        row.connected = false;
        assert!(!row.is_ready(), "its agent runs here and has no tunnel");
        row.connected = true;
        let problem = Some("does not answer".to_owned());
        row.target = Some(TargetRow { address: "127.0.0.1:1".to_owned(), problem });
        assert!(!row.is_ready());
        row.target = None;
        row.connected = false;
        assert!(row.is_ready(), "somebody's box may be switched off");
    }
}
