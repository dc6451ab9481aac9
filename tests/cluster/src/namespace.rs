//! A namespace for one test, so that tests never see each other's objects.

use std::any::Any;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use futures_util::FutureExt;
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::{ClusterError, ControlPlane, KEEP_VARIABLE, LOGS_VARIABLE, is_set};

/// Why a test failed.
pub type TestError = Box<dyn std::error::Error + Send + Sync>;

/// What is written down of a failed test: everything of ours, and what was said beside it.
const DUMPED: [&str; 3] = ["latchkey", "events", "statefulsets,pods,services,poddisruptionbudgets"];

/// Instances removed by one request.
const REMOVED_AT_ONCE: usize = 2_000;

/// A namespace for one test.
#[derive(Debug)]
pub struct TestNamespace<'a> {
    control_plane: &'a ControlPlane,
    name: String,
}

impl TestNamespace<'_> {
    /// Its name: `latchkey-test-<purpose>-<random>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name for a cluster-wide object that no other test uses. The objects go with the namespace.
    pub fn cluster_wide(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// The control plane it is in.
    pub fn control_plane(&self) -> &ControlPlane {
        self.control_plane
    }
}

impl ControlPlane {
    /// Runs a test in a namespace of its own. When it fails, by error or by panic, the objects in it are written to a
    /// file. Then it is removed, unless `LATCHKEY_TEST_KEEP` is set.
    pub async fn in_namespace<'a, T>(&'a self, purpose: &str, test: T) -> Result<(), TestError>
    where
        T: AsyncFnOnce(&TestNamespace<'a>) -> Result<(), TestError>,
    {
        let namespace = self.make_namespace(purpose).await?;
        let outcome = AssertUnwindSafe(test(&namespace)).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|panic| Err(told(panic.as_ref()).into()));
        let outcome: Result<(), TestError> = match outcome {
            Ok(()) => Ok(()),
            Err(error) => {
                let dump = self.dump(&namespace).await;
                let place = dump
                    .map_or_else(|error| format!("not written: {error}"), |path| path.display().to_string());
                Err(format!("{error}\nobjects of {}: {place}", namespace.name).into())
            }
        };
        let removed = if is_set(KEEP_VARIABLE) { Ok(()) } else { self.remove(&namespace).await };
        outcome?;
        Ok(removed?)
    }

    async fn make_namespace(&self, purpose: &str) -> Result<TestNamespace<'_>, ClusterError> {
        let name = format!("latchkey-test-{purpose}-{:08x}", rand::random::<u32>());
        let namespace = Namespace {
            metadata: kube::core::ObjectMeta {
                name: Some(name.clone()),
                labels: Some([("latchkey.dev/test".to_owned(), purpose.to_owned())].into()),
                ..Default::default()
            },
            ..Default::default()
        };
        Api::all(self.client()).create(&PostParams::default(), &namespace).await?;
        Ok(TestNamespace { control_plane: self, name })
    }

    async fn remove(&self, namespace: &TestNamespace<'_>) -> Result<(), ClusterError> {
        // A light control plane has no controller that empties a namespace, nor one that takes cluster-wide objects.
        let group = format!("/apis/{}", resources::API_VERSION);
        let instances = format!("{group}/namespaces/{}/remoteinstances", namespace.name);
        // So many at once take longer than a request may.
        let some = format!("{instances}?limit={REMOVED_AT_ONCE}");
        loop {
            let answer = self.exchange(Method::DELETE, &some, &json!({})).await?;
            let removed = answer.body.get("items").and_then(|items| items.as_array()).map_or(0, Vec::len);
            if removed < REMOVED_AT_ONCE {
                break;
            }
        }
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        for kind in [
            format!("{group}/versionblocks"),
            format!("{rbac}/clusterrolebindings"),
            format!("{rbac}/clusterroles"),
        ] {
            let all = self.exchange(Method::GET, &kind, &json!(null)).await?;
            for object in all.body.get("items").and_then(|items| items.as_array()).into_iter().flatten() {
                let name = object.pointer("/metadata/name").and_then(|name| name.as_str());
                let name = name.unwrap_or_default();
                if name.starts_with(&format!("{}.", namespace.name)) {
                    self.exchange(Method::DELETE, &format!("{kind}/{name}"), &json!({})).await?;
                }
            }
        }
        Api::<Namespace>::all(self.client()).delete(&namespace.name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn dump(&self, namespace: &TestNamespace<'_>) -> Result<PathBuf, ClusterError> {
        let mut text = String::new();
        for kind in DUMPED {
            let output = self.kubectl(&["get", kind, "-n", &namespace.name, "-o", "yaml"]).await?;
            let _ = writeln!(text, "# kubectl get {kind}\n{}{}---", output.stdout, output.stderr);
        }
        let folder = std::env::var_os(LOGS_VARIABLE).map_or_else(std::env::temp_dir, PathBuf::from);
        let path = folder.join(format!("{}.yaml", namespace.name));
        std::fs::write(&path, text).map_err(ClusterError::io(format!("writing {}", path.display())))?;
        Ok(path)
    }
}

/// What a panic says.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}
