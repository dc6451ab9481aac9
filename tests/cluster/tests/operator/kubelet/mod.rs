//! Stands in for a scheduler, a node and its kubelet: for every pod of a namespace it runs the program of the pod's image as a
//! process, with what the pod's own spec says: arguments, environment, Secrets and `ConfigMap`s as files, probes that are
//! really asked, SIGTERM and a grace before SIGKILL, restarts with a growing pause. The proxies are the real ones, and nobody
//! but them says whether they are ready.
//!
//! Many pods share one machine, so each has a loopback address of its own; its ports stay what they are. Two kinds of words
//! in the arguments are therefore replaced ([`container`]): the address to listen on, and the name of the operators' headless
//! Service, which nobody here could resolve. Mounted folders are elsewhere.
//!
//! What it does not do: pull images (a name stands for a program, see [`Image`]), isolate (users, capabilities, memory,
//! read-only file systems), networks and their policies, keep mounted files up to date, run init containers or hooks. Whatever
//! in a spec it cannot do at all is a failure of the test.

mod container;
mod pod;
mod probe;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use latchkey_cluster_tests::TestError;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How often it looks at the pods.
const EVERY: Duration = Duration::from_millis(100);

/// What an image's name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Image {
    /// This program, with the arguments of the pod.
    Program(PathBuf),
    /// The same, but it finds no operator: it starts, and is never ready.
    Lost(PathBuf),
    /// One that cannot run: it ends at once, badly.
    Broken,
}

/// What a kubelet has to know beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Images that can be pulled.
    pub(crate) images: BTreeMap<String, Image>,
    /// What the name of the operators' Service leads to.
    pub(crate) operators: Vec<SocketAddr>,
    /// Where volumes and logs are.
    pub(crate) folder: PathBuf,
}

/// A pod that runs, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) uid: String,
    pub(crate) image: String,
    pub(crate) address: IpAddr,
    pub(crate) is_ready: bool,
    pub(crate) is_ending: bool,
    /// Of its process, while it has one.
    pub(crate) process: Option<u32>,
    pub(crate) restarts: u32,
}

/// A pod that was told to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) pod: String,
    pub(crate) image: String,
    /// The others that were ready when it was told.
    pub(crate) others: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Shared {
    pods: BTreeMap<String, Running>,
    ended: Vec<Ended>,
    trouble: Option<String>,
}

/// Ends, with every process it started, when it is dropped.
pub(crate) struct Kubelet {
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    /// Looks after the pods of a namespace, on a node of its own.
    pub(crate) async fn start(client: &Client, namespace: &str, machine: Machine) -> Result<Self, TestError> {
        let node = format!("{namespace}-node");
        let nodes: Api<Node> = Api::all(client.clone());
        nodes
            .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": node}}))?)
            .await?;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        nodes.patch_status(&node, &PatchParams::default(), &Patch::Merge(&ready)).await?;
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let work = Work {
            client: client.clone(),
            namespace: namespace.to_owned(),
            node,
            machine: Arc::new(machine),
            shared: Arc::clone(&shared),
        };
        Ok(Self { shared, task: tokio::spawn(work.run()) })
    }

    /// The pods that run now, by name.
    pub(crate) fn pods(&self) -> BTreeMap<String, Running> {
        let shared = self.shared.lock().unwrap();
        assert_eq!(shared.trouble, None, "the kubelet cannot do what it should");
        shared.pods.clone()
    }

    /// The pods that were told to end, in this order.
    pub(crate) fn ended(&self) -> Vec<Ended> {
        self.shared.lock().unwrap().ended.clone()
    }

    /// Where a Service of these pods leads: to those that are ready. The real controller of endpoints does not take
    /// loopback addresses.
    pub(crate) fn endpoints(&self) -> impl Fn() -> Vec<IpAddr> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let shared = shared.lock().unwrap();
            let serving = shared.pods.values().filter(|pod| pod.is_ready && !pod.is_ending);
            serving.map(|pod| pod.address).collect()
        }
    }
}

struct Work {
    client: Client,
    namespace: String,
    node: String,
    machine: Arc<Machine>,
    shared: Arc<Mutex<Shared>>,
}

impl Work {
    async fn run(self) {
        // They end with this task, and their processes with them.
        let mut workers = JoinSet::new();
        let mut told: BTreeMap<String, watch::Sender<Pod>> = BTreeMap::new();
        loop {
            if let Err(error) = self.look(&mut workers, &mut told).await {
                self.trouble(&error.to_string());
                return;
            }
            while let Some(ended) = workers.try_join_next() {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => self.trouble(&format!("{error}")),
                    Err(error) => self.trouble(&error.to_string()),
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn trouble(&self, what: &str) {
        self.shared.lock().unwrap().trouble.get_or_insert_with(|| what.to_owned());
    }

    async fn look(
        &self,
        workers: &mut JoinSet<Result<(), TestError>>,
        told: &mut BTreeMap<String, watch::Sender<Pod>>,
    ) -> Result<(), TestError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pods = api.list(&ListParams::default()).await?.items;
        let here: BTreeSet<String> = pods.iter().filter_map(ResourceExt::uid).collect();
        // Who is gone was deleted by force: the worker ends when its sender does.
        told.retain(|uid, _| here.contains(uid));
        self.shared.lock().unwrap().pods.retain(|_, running| here.contains(&running.uid));
        for pod in pods {
            let uid = pod.uid().unwrap_or_default();
            if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
                self.bind(&pod.name_any()).await?;
            } else if let Some(told) = told.get(&uid) {
                told.send_replace(pod);
            } else {
                let (sender, receiver) = watch::channel(pod);
                let (machine, shared) = (Arc::clone(&self.machine), Arc::clone(&self.shared));
                workers.spawn(pod::run(api.clone(), self.client.clone(), machine, shared, receiver));
                told.insert(uid, sender);
            }
        }
        Ok(())
    }

    /// What a scheduler does.
    async fn bind(&self, pod: &str) -> Result<(), TestError> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.node},
        });
        let uri = format!("/api/v1/namespaces/{}/pods/{pod}/binding", self.namespace);
        let request = http::Request::post(uri).header("content-type", "application/json");
        match self.client.request::<Value>(request.body(binding.to_string().into_bytes())?).await {
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}
