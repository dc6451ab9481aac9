//! Stands for a scheduler and for the kubelets of nodes. It says of itself that it pretends, because nothing runs: no image
//! is pulled and no container started here. What it does is what they tell the API server, and nothing more: a pod gets a
//! node, is ready, or cannot start when its image has `bad` in its name, and is gone once it was asked to leave. Everything
//! that decides (the `StatefulSet`'s controller, the budget, evictions) is real.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// How often it looks at the pods.
const EVERY: Duration = Duration::from_millis(100);

/// What a test tells it and asks it.
#[derive(Default)]
struct Shared {
    /// Pods that say they are not ready.
    unready: BTreeSet<String>,
    /// Nodes that are not heard of any more.
    lost: BTreeSet<String>,
    /// Pods that were ended, in this order, each with how many others were ready at that time.
    ended: Vec<(String, usize)>,
    trouble: Option<String>,
}

/// Ends when it is dropped.
pub(crate) struct PretendKubelet {
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
    nodes: Api<Node>,
}

impl Drop for PretendKubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PretendKubelet {
    /// Looks after the pods of a namespace.
    pub(crate) fn start(client: &Client, namespace: &str) -> Self {
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let work = Work {
            pods: Api::namespaced(client.clone(), namespace),
            nodes: Api::all(client.clone()),
            client: client.clone(),
            namespace: namespace.to_owned(),
            shared: Arc::clone(&shared),
        };
        let task = tokio::spawn(work.run());
        Self { shared, task, nodes: Api::all(client.clone()) }
    }

    /// From now on the pod says that it is not ready; or that it is again.
    pub(crate) fn say_ready(&self, pod: &str, ready: bool) {
        let mut shared = self.shared.lock().unwrap();
        if ready {
            shared.unready.remove(pod);
        } else {
            shared.unready.insert(pod.to_owned());
        }
    }

    /// The pods that were ended, each with how many others were ready at that time.
    pub(crate) fn ended(&self) -> Vec<(String, usize)> {
        let shared = self.shared.lock().unwrap();
        assert_eq!(shared.trouble, None);
        shared.ended.clone()
    }

    /// The node falls silent: nobody ends its pods, and the control plane says that it has not heard of it.
    pub(crate) async fn lose(&self, node: &str) -> Result<(), kube::Error> {
        self.shared.lock().unwrap().lost.insert(node.to_owned());
        let status = node_status("Unknown");
        self.nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }
}

struct Work {
    pods: Api<Pod>,
    nodes: Api<Node>,
    client: Client,
    namespace: String,
    shared: Arc<Mutex<Shared>>,
}

impl Work {
    async fn run(self) {
        loop {
            if let Err(error) = self.look().await {
                self.shared.lock().unwrap().trouble = Some(error.to_string());
                return;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn look(&self) -> Result<(), kube::Error> {
        let pods = self.pods.list(&ListParams::default()).await?.items;
        let ready: BTreeMap<String, bool> = pods.iter().map(|pod| (pod.name_any(), is_ready(pod))).collect();
        for pod in &pods {
            // Somebody else may have changed or taken it meanwhile: the next look sees what it is now.
            match self.look_after(pod, &ready).await {
                Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn look_after(&self, pod: &Pod, ready: &BTreeMap<String, bool>) -> Result<(), kube::Error> {
        let name = pod.name_any();
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
            return self.bind(&name).await;
        };
        let is_lost = self.shared.lock().unwrap().lost.contains(&node);
        if is_lost {
            // What the node's controller does when a node falls silent.
            return self.set(pod, &condition_ready(false)).await;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
                ..DeleteParams::default()
            };
            let others = ready.iter().filter(|(other, ready)| **other != name && **ready).count();
            self.pods.delete(&name, &params).await?;
            self.shared.lock().unwrap().ended.push((name, others));
            return Ok(());
        }
        let image =
            pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone()).unwrap_or_default();
        let says_ready = !self.shared.lock().unwrap().unready.contains(&name);
        let status = if image.contains("bad") { cannot_start(&image) } else { condition_ready(says_ready) };
        self.set(pod, &status).await
    }

    /// What a scheduler does, on a node of the pod's own.
    async fn bind(&self, pod: &str) -> Result<(), kube::Error> {
        let name = format!("{}-{pod}-{:04x}", self.namespace, rand::random::<u16>());
        let node: Node = read(json!({"metadata": {"name": name}}));
        self.nodes.create(&PostParams::default(), &node).await?;
        self.nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&node_status("True"))).await?;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": name},
        });
        let uri = format!("/api/v1/namespaces/{}/pods/{pod}/binding", self.namespace);
        let request = http::Request::post(uri).header("content-type", "application/json");
        let request = request.body(binding.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
        self.client.request::<Value>(request).await?;
        Ok(())
    }

    /// Says it, unless it was said before.
    async fn set(&self, pod: &Pod, status: &Value) -> Result<(), kube::Error> {
        let known = serde_json::to_value(&pod.status).unwrap();
        let is_ready = status["conditions"][0]["status"] == "True";
        let same_state = known["containerStatuses"][0]["state"] == status["containerStatuses"][0]["state"];
        let was_told = known["phase"] == status["phase"];
        if was_told && same_state && self::is_ready(pod) == is_ready {
            return Ok(());
        }
        let patch = json!({"status": status});
        self.pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }
}

fn condition_ready(ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": status}], "containerStatuses": null})
}

fn cannot_start(image: &str) -> Value {
    let waiting =
        json!({"waiting": {"reason": "ImagePullBackOff", "message": format!("Back-off pulling {image}")}});
    json!({
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [
            {"name": "proxy", "image": image, "imageID": "", "ready": false, "restartCount": 0, "state": waiting},
        ],
    })
}

fn node_status(ready: &str) -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}
