//! Manifests from a folder.

mod document;
mod fault;
mod files;
mod manifest;
mod nearest;
mod settle;
mod types;
mod validate;

pub use fault::{Fault, FaultKind, Place, SourceText};
pub use files::{Cache, MAX_FILE_BYTES, MAX_FILES, MAX_FOLDER_BYTES, MAX_FOLDER_DEPTH, Reading};
pub use manifest::{DEFAULT_NAMESPACE, FileReading, Object, PassedOver, Subject};
pub use settle::{Good, InForce, InstallationChoice, LastGood, Settled, settle};
