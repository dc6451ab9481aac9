//! Tests by name over one control plane, made of whatever there is: functions, files, rows of a table.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::OnceCell;

use crate::{Answer, ClusterError, ControlPlane, TestError};

/// The one control plane of a run, started by the first test that wants it.
#[derive(Debug, Clone)]
pub struct Suite {
    runtime: Handle,
    started: Arc<OnceCell<Started>>,
}

#[derive(Debug)]
struct Started {
    control_plane: ControlPlane,
    installed: Vec<Answer>,
}

impl Suite {
    /// The `main` of a test binary without libtest's harness: makes the tests and runs those that the arguments name.
    /// The servers end when it returns.
    pub fn run(tests: impl FnOnce(&Self) -> Vec<Trial>) -> ExitCode {
        let arguments = Arguments::from_args();
        let Ok(runtime) = Runtime::new() else { return ExitCode::FAILURE };
        let suite = Self { runtime: runtime.handle().clone(), started: Arc::default() };
        let tests = tests(&suite);
        libtest_mimic::run(&arguments, tests).exit_code()
    }

    /// A test. Panics count as failures, as everywhere.
    pub fn test<T, F>(&self, name: impl Into<String>, test: T) -> Trial
    where
        T: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = Result<(), TestError>>,
    {
        let suite = self.clone();
        Trial::test(name, move || {
            let runtime = suite.runtime.clone();
            Ok(runtime.block_on(test(suite))?)
        })
    }

    /// The control plane, with the definitions installed.
    pub async fn control_plane(&self) -> Result<&ControlPlane, ClusterError> {
        Ok(&self.started().await?.control_plane)
    }

    /// What the API server said when the definitions were installed, one answer each.
    pub async fn installed(&self) -> Result<&[Answer], ClusterError> {
        Ok(&self.started().await?.installed)
    }

    async fn started(&self) -> Result<&Started, ClusterError> {
        let start = || async {
            let control_plane = ControlPlane::start().await?;
            let installed = control_plane.install_definitions().await?;
            Ok(Started { control_plane, installed })
        };
        self.started.get_or_try_init(start).await
    }
}
