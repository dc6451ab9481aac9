//! A real Kubernetes API server for tests.
//!
//! ```no_run
//! use latchkey_cluster_tests::ControlPlane;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let control_plane = ControlPlane::start().await?;
//! control_plane.install_definitions().await?;
//! control_plane
//!     .in_namespace("status", async |namespace| {
//!         // Whatever fails in here leaves a file with the namespace's objects, then the namespace goes.
//!         namespace.control_plane().kubectl(&["get", "ri", "-n", namespace.name()]).await?;
//!         Ok(())
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A test binary is a [`Suite`]: its tests share one control plane, and a file or a row of a table can be a test.
//!
//! One control plane serves a whole run: etcd and kube-apiserver of their own on loopback, or the cluster of
//! `LATCHKEY_TEST_KUBECONFIG`. There are no nodes, and controllers only for a test that asks for them
//! ([`ControlPlane::start_controllers`]): what is tested is what the API server does.

mod audit;
mod certificates;
mod control_plane;
mod error;
mod exchange;
mod folder;
mod kubectl;
mod name_server;
mod namespace;
mod ports;
mod process;
mod suite;
mod tools;

pub use audit::Asked;
pub use control_plane::{CONTROLLERS, ControlPlane, Server};
pub use error::ClusterError;
pub use exchange::Answer;
pub use kubectl::Output;
pub use name_server::NameServer;
pub use namespace::{TestError, TestNamespace};
pub use ports::free_ports;
pub use process::Process;
pub use suite::Suite;

/// A kubeconfig: tests use its cluster instead of starting one.
pub const KUBECONFIG_VARIABLE: &str = "LATCHKEY_TEST_KUBECONFIG";
/// With any value, servers and namespaces stay when tests are over.
pub const KEEP_VARIABLE: &str = "LATCHKEY_TEST_KEEP";
/// Where etcd, kube-apiserver and kubectl are; else `tests/cluster/tools/build` tells.
pub const TOOLS_VARIABLE: &str = "LATCHKEY_CLUSTER_TOOLS";
/// Where the objects of a failed test are written; else a folder for temporary files.
pub const LOGS_VARIABLE: &str = "LATCHKEY_TEST_LOGS";

/// Is this variable set to something?
fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}
