//! The proxies' pods, as a watch shows them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;

use super::labels::{PROXY_APP, selector_text};
use super::task::Task;
use crate::names::Names;

/// Label with the revision of the `StatefulSet`'s template that a pod was made from.
const REVISION_LABEL: &str = "controller-revision-hash";
/// Reasons for which a container waits that time alone does not mend.
const HOPELESS: &[&str] = &[
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyPod {
    /// Its name: `<stateful set>-<ordinal>`.
    pub name: String,
    /// Which of the pods that had this name.
    pub uid: String,
    /// Its number.
    pub ordinal: u32,
    /// What it was made from.
    pub revision: String,
    /// Does it say that it is ready?
    pub ready: bool,
    /// Was it asked to end?
    pub is_ending: bool,
    /// What is wrong with its containers, if time alone does not mend it.
    pub trouble: Option<String>,
    /// Where it runs.
    pub node: Option<String>,
}

/// The pods at a time.
pub type Pods = BTreeMap<String, ProxyPod>;

/// Watches the pods.
#[derive(Debug)]
pub struct ProxyPods {
    pods: Arc<Mutex<Arc<Pods>>>,
    changes: watch::Receiver<u64>,
    _task: Task,
}

impl ProxyPods {
    /// Begins to watch.
    pub fn start(client: Client, names: &Names) -> Self {
        let (told, changes) = watch::channel(0);
        let pods = Arc::new(Mutex::new(Arc::default()));
        let task = Task::start(follow(client, names.clone(), Arc::clone(&pods), told));
        Self { pods, changes, _task: task }
    }

    /// The pods now.
    pub fn pods(&self) -> Arc<Pods> {
        Arc::clone(&self.pods.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which pods there are, and which of them visitors are sent to.
    pub fn ready(&self) -> BTreeMap<String, bool> {
        let pods = self.pods();
        pods.values().map(|pod| (pod.name.clone(), pod.ready && !pod.is_ending)).collect()
    }

    /// Goes up with each change; 0 until they were seen for the first time.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Waits until they were seen.
    pub async fn synced(&self) {
        // It cannot be gone: the task that tells lives in `self`.
        let _ = self.subscribe().wait_for(|count| *count > 0).await;
    }
}

async fn follow(client: Client, names: Names, shown: Arc<Mutex<Arc<Pods>>>, told: watch::Sender<u64>) {
    let api: Api<Pod> = Api::namespaced(client, &names.namespace);
    let config = watcher::Config::default().labels(&selector_text(&names, PROXY_APP)).streaming_lists();
    let mut stream = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    let set = names.proxies();
    let mut pods = Pods::new();
    let mut listed = Pods::new();
    let mut is_first = true;
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "the proxies' pods cannot be watched; what was seen last counts");
                continue;
            }
        };
        let before = pods.clone();
        let is_whole = matches!(event, Event::InitDone);
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => listed.extend(read(&pod, &set).map(|pod| (pod.name.clone(), pod))),
            Event::InitDone => pods = std::mem::take(&mut listed),
            Event::Apply(pod) => pods.extend(read(&pod, &set).map(|pod| (pod.name.clone(), pod))),
            Event::Delete(pod) => {
                let uid = pod.uid();
                pods.retain(|_, known| Some(&known.uid) != uid.as_ref());
            }
        }
        if pods != before || (is_first && is_whole) {
            is_first = false;
            *shown.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(pods.clone());
            told.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// What matters of a pod, if it is one of the set's.
fn read(pod: &Pod, set: &str) -> Option<ProxyPod> {
    let name = pod.metadata.name.clone()?;
    let ordinal = name.strip_prefix(set)?.strip_prefix('-')?.parse().ok()?;
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Some(ProxyPod {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        ordinal,
        revision: pod.labels().get(REVISION_LABEL).cloned().unwrap_or_default(),
        ready,
        is_ending: pod.metadata.deletion_timestamp.is_some(),
        trouble: trouble(pod).filter(|_| !ready),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        name,
    })
}

fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = [&status.init_container_statuses, &status.container_statuses];
    containers.into_iter().flatten().flatten().find_map(of_container)
}

fn of_container(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| HOPELESS.contains(reason))?;
    let message = waiting.message.as_deref().filter(|message| !message.is_empty());
    Some(message.map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(change: impl FnOnce(&mut serde_json::Value)) -> Option<ProxyPod> {
        let mut value = json!({
            "metadata": {
                "name": "latchkey-default-proxy-1",
                "uid": "u",
                "labels": {"controller-revision-hash": "proxy-abc"},
            },
            "spec": {"containers": [], "nodeName": "node-1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut value);
        read(&serde_json::from_value(value).unwrap(), "latchkey-default-proxy")
    }

    #[test]
    fn a_pod_is_read() {
        let ready = ProxyPod {
            name: "latchkey-default-proxy-1".to_owned(),
            uid: "u".to_owned(),
            ordinal: 1,
            revision: "proxy-abc".to_owned(),
            ready: true,
            is_ending: false,
            trouble: None,
            node: Some("node-1".to_owned()),
        };
        assert_eq!(pod(|_| ()), Some(ready.clone()));
        let ending = pod(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        assert_eq!(ending, Some(ProxyPod { is_ending: true, ..ready.clone() }));
        let waiting = |reason: &str| {
            pod(|pod| {
                let state = json!({"waiting": {"reason": reason, "message": "back-off 10s"}});
                pod["status"] = json!({"containerStatuses": [
                    {"name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 3, "state": state},
                ]});
            })
        };
        let crashed = ProxyPod {
            ready: false,
            trouble: Some("CrashLoopBackOff: back-off 10s".to_owned()),
            ..ready.clone()
        };
        assert_eq!(waiting("CrashLoopBackOff"), Some(crashed));
        assert_eq!(waiting("ContainerCreating"), Some(ProxyPod { ready: false, ..ready }));
    }

    #[test]
    fn pods_of_others_are_none_of_ours() {
        for name in ["latchkey-default-proxy", "latchkey-default-proxy-x", "latchkey-other-proxy-1", "x"] {
            assert_eq!(pod(|pod| pod["metadata"]["name"] = json!(name)), None, "{name}");
        }
    }
}
