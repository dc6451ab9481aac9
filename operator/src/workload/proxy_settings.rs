//! What can be set for the proxies: the member `proxies` of an installation's settings. Everything but the image has a
//! default.
//!
//! What goes into the pods' template restarts proxies, one after the other, when it changes. The rest is said here to do
//! without.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::amount::Amount;

const REPLICAS: i32 = 2;
const GRACE: u32 = 60;
const READY_WITHIN: u32 = 300;
const TUNNELS_WITHIN: u32 = 600;
const TUNNELS_BACK: u32 = 90;
const TABLE_CACHE_MEBIBYTES: u32 = 256;
const PUBLIC_PORT: u16 = 443;

/// The proxies.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxySettings {
    /// What runs.
    pub image: String,
    /// When it is pulled; Kubernetes decides where this is not set.
    #[serde(default)]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets that open its registry.
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// How many pods. Changes without a restart.
    #[serde(default = "replicas")]
    pub replicas: i32,
    /// How long visitors may take to finish when a pod ends.
    #[serde(default = "grace")]
    pub grace_seconds: u32,
    /// Further arguments, e.g. `--trusted-proxies=10.0.0.0/24`.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Processor and memory.
    #[serde(default)]
    pub resources: ProxyResources,
    /// What the volume in memory may hold where a proxy keeps its last good table. Counts as the pod's memory.
    #[serde(default = "table_cache")]
    pub table_cache: Amount,
    /// Labels of nodes that may run them.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that they bear.
    #[serde(default)]
    pub tolerations: Vec<Toleration>,
    /// How important they are.
    #[serde(default)]
    pub priority_class_name: Option<String>,
    /// How visitors and agents get to them. Changes without a restart.
    #[serde(default)]
    pub service: PublicService,
    /// Namespaces whose pods may read metrics. Changes without a restart.
    #[serde(default)]
    pub scrapers_from: Vec<String>,
    /// How they are rolled. Changes without a restart.
    #[serde(default)]
    pub roll: RollSettings,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ImagePullPolicy {
    /// Each time.
    Always,
    /// Once.
    IfNotPresent,
    /// It is there.
    Never,
}

/// Processor and memory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyResources {
    /// What is kept free for a pod.
    pub requests: BTreeMap<String, Amount>,
    /// What it may have.
    pub limits: BTreeMap<String, Amount>,
}

/// A taint that is borne.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    /// Which; every taint without it.
    pub key: Option<String>,
    /// How `value` is compared.
    pub operator: Option<TolerationOperator>,
    /// Its value.
    pub value: Option<String>,
    /// What it does; everything without it.
    pub effect: Option<TaintEffect>,
    /// For how long, where it evicts.
    pub toleration_seconds: Option<i64>,
}

/// How a taint's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TolerationOperator {
    /// Any value.
    Exists,
    /// That value.
    Equal,
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TaintEffect {
    /// Keeps new pods away.
    NoSchedule,
    /// Keeps new pods away, where there is another place.
    PreferNoSchedule,
    /// Ends pods, too.
    NoExecute,
}

/// How visitors and agents get to the proxies.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicService {
    /// What kind of a `Service`.
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    /// Its port.
    pub port: u16,
    /// Annotations, which many load balancers are set by.
    pub annotations: BTreeMap<String, String>,
    /// Which load balancer, where there are several.
    pub load_balancer_class: Option<String>,
    /// `Local` keeps visitors' addresses.
    pub external_traffic_policy: TrafficPolicy,
}

/// What kind of a `Service`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ServiceKind {
    /// With an address outside.
    LoadBalancer,
    /// On a port of every node.
    NodePort,
    /// Inside the cluster.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

/// Where traffic from outside may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TrafficPolicy {
    /// To pods of the node that it reached: the visitor's address stays.
    Local,
    /// To all pods: the visitor's address is a node's.
    Cluster,
}

/// How they are rolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RollSettings {
    /// How long a new pod may take to be ready and to have the current routes; then the roll pauses.
    pub ready_within_seconds: u32,
    /// How long the tunnels of the pod that was replaced may take to be back; then the roll goes on.
    pub tunnels_within_seconds: u32,
    /// How many of them count as all.
    pub tunnels_back_percent: u32,
}

impl Default for ProxyResources {
    fn default() -> Self {
        let amounts = |pairs: &[(&str, &str)]| {
            let amount = |(name, text): &(&str, &str)| Some(((*name).to_owned(), Amount::new(*text)?));
            pairs.iter().filter_map(amount).collect()
        };
        Self {
            requests: amounts(&[("cpu", "100m"), ("memory", "256Mi")]),
            // No limit of the processor: a visitor would wait for the rest of a tenth of a second.
            limits: amounts(&[("memory", "2Gi")]),
        }
    }
}

impl Default for PublicService {
    fn default() -> Self {
        Self {
            kind: ServiceKind::LoadBalancer,
            port: PUBLIC_PORT,
            annotations: BTreeMap::new(),
            load_balancer_class: None,
            external_traffic_policy: TrafficPolicy::Local,
        }
    }
}

impl Default for RollSettings {
    fn default() -> Self {
        Self {
            ready_within_seconds: READY_WITHIN,
            tunnels_within_seconds: TUNNELS_WITHIN,
            tunnels_back_percent: TUNNELS_BACK,
        }
    }
}

fn replicas() -> i32 {
    REPLICAS
}

fn grace() -> u32 {
    GRACE
}

fn table_cache() -> Amount {
    Amount::of_mebibytes(TABLE_CACHE_MEBIBYTES)
}
