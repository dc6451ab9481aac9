//! Latchkey's custom resources, `latchkey.dev/v1alpha1`, as types that are valid once they exist.
//!
//! Whoever reads an object calls [`Observed::read`]: it never fails. An object that makes no sense (its rules were
//! skipped, or an older version stored it) is a value too, so that it gets a status instead of a log line.

mod check;
pub mod condition;
pub mod crds;
pub mod installation;
mod nearest;
pub mod observed;
mod quoted;
pub mod remote_instance;
mod schema;
mod timestamp;
pub mod version_block;

pub use check::{
    Checked, MAX_ACCEPTED_BLOCKS, MAX_CUSTOM_DOMAINS, MAX_LABEL_LENGTH, MAX_NOTE_LENGTH, MAX_RATE, Problem,
    is_host_and_port, is_label, is_object_name,
};
pub use condition::Condition;
pub use installation::{Installation, InstallationSpec};
pub use nearest::did_you_mean;
pub use observed::{About, Annotations, Object, Observed, Parts, Unreadable};
pub use remote_instance::{RemoteInstance, RemoteInstanceSpec, RemoteInstanceStatus};
pub use timestamp::{Timestamp, TimestampError};
pub use version_block::{VersionBlock, VersionBlockSpec, VersionBlockStatus};

/// The API group.
pub const GROUP: &str = "latchkey.dev";
/// The API version inside the group.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every resource.
pub const API_VERSION: &str = "latchkey.dev/v1alpha1";

/// Annotation with the SHA-256 of enrolled agents' keys: comma separated, 64 hex digits each.
pub const AGENT_KEYS_ANNOTATION: &str = "latchkey.dev/agent-keys";
/// Annotation for `latchkey up`: where the instance listens on this machine, `HOST:PORT`.
pub const TARGET_ANNOTATION: &str = "latchkey.dev/target";
