//! A folder of manifests in place of a cluster: reads it, says what is wrong and where, remembers what stands in no
//! manifest, watches for changes, and makes plans.
//!
//! The way of a change: [`ManifestFolder`] sees it; `files` finds and reads what changed; `document` makes trees that
//! know where each value stands; `manifest` makes objects of them, with `head` (names, labels), `validate` (the schema
//! of the resources) and `types` (their types) telling everything that is wrong; [`settle()`] decides which objects are
//! in force; [`Shell`] completes them with what the state folder knows, and asks the planner.
//!
//! ```no_run
//! use manifest_folder::{Defaults, FolderWatch, ManifestFolder, Shell, StateFolder};
//! use planner::{Facts, Timestamp};
//!
//! # async fn up(now: fn() -> Timestamp, facts: fn() -> Facts) -> Result<(), Box<dyn std::error::Error>> {
//! let mut folder = ManifestFolder::open("manifests", FolderWatch::default()).await;
//! let mut shell = Shell::open(StateFolder::open("state".as_ref())?, Defaults { public_port: 8443 })?;
//! shell.take(&folder.snapshot(), now());
//! loop {
//!     for fault in shell.faults() {
//!         eprintln!("{fault}");
//!     }
//!     if let Some(plan) = shell.step(now(), facts()) {
//!         // Publish plan.routes, then:
//!         shell.save()?;
//!     }
//!     let reading = folder.changed().await;
//!     shell.take(&reading, now());
//! }
//! # }
//! ```

mod document;
mod fault;
mod files;
mod head;
mod manifest;
mod settle;
mod shell;
mod state;
mod types;
mod validate;
mod watch;

pub use fault::{Fault, FaultKind, Place, SourceText};
pub use files::{Cache, MAX_FILE_BYTES, MAX_FILES, MAX_FOLDER_BYTES, MAX_FOLDER_DEPTH, Reading};
pub use manifest::{DEFAULT_NAMESPACE, FileReading, Object, PassedOver, Subject};
pub use settle::{Good, InForce, InstallationChoice, LastGood, Settled, Stated, settle};
pub use shell::{DEFAULT_DOMAIN, DEFAULT_INSTALLATION, Defaults, EnrolError, Shell};
pub use state::{Enrolled, MAX_KEYS_PER_INSTANCE, StateError, StateFolder, TooManyKeys};
pub use watch::{FolderWatch, ManifestFolder};
