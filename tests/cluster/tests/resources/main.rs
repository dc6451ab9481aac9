//! What a real API server makes of the custom resources. `./test cluster` runs it, or
//! `cargo test -p latchkey-cluster-tests --test resources -- [NAME]`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail that way"
)]

mod changes;
mod columns;
mod definitions;
mod explain;
mod objects;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use latchkey_cluster_tests::{Answer, ControlPlane, TestError};
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::OnceCell;

/// The one control plane of a run, started by the first test that wants it.
#[derive(Debug, Clone)]
struct Cluster {
    runtime: Handle,
    started: Arc<OnceCell<Started>>,
}

/// A control plane with the definitions installed.
#[derive(Debug)]
struct Started {
    control_plane: ControlPlane,
    /// What it said when they were installed, one answer each.
    installed: Vec<Answer>,
}

impl Cluster {
    async fn get(&self) -> Result<&Started, TestError> {
        let start = || async {
            let control_plane = ControlPlane::start().await?;
            let installed = control_plane.install_definitions().await?;
            Ok(Started { control_plane, installed })
        };
        self.started.get_or_try_init(start).await
    }

    /// A test by name.
    fn test<F>(&self, name: impl Into<String>, test: impl FnOnce(Cluster) -> F + Send + 'static) -> Trial
    where
        F: Future<Output = Result<(), TestError>>,
    {
        let cluster = self.clone();
        Trial::test(name, move || {
            let runtime = cluster.runtime.clone();
            Ok(runtime.block_on(test(cluster))?)
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = Runtime::new().expect("a runtime");
    let cluster = Cluster { runtime: runtime.handle().clone(), started: Arc::default() };
    let tests = [definitions::tests, objects::tests, changes::tests, explain::tests, columns::tests]
        .into_iter()
        .flat_map(|tests| tests(&cluster))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, tests);
    // The servers end here.
    drop(cluster);
    conclusion.exit_code()
}
