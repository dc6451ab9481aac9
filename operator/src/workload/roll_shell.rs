//! Does what [`super::roll`] decides: evicts, deletes by force, tells events, counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use kube::api::{Api, DeleteParams, DynamicObject, EvictParams, Preconditions};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

use super::keep::Keeper;
use super::pods::{Pods, ProxyPods};
use super::proxy_settings::RollSettings;
use super::roll::{Action, ProxySeen, Roll, Seen};
use super::settings_source::SettingsSource;
use super::stats::WorkloadStats;
use super::tell::{Teller, Weight};

/// How often it looks while a roll is under way: tunnels and routes of proxies tell nobody when they change.
const LOOK_WHILE_ROLLING: Duration = Duration::from_secs(1);
/// How often it looks otherwise: at nodes, mostly.
const LOOK_OTHERWISE: Duration = Duration::from_secs(5);
/// How long an eviction may take to be answered.
const EVICT_WITHIN: Duration = Duration::from_secs(5);
/// The code of an answer that says "not now".
const TOO_MANY_REQUESTS: u16 = 429;
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// Who knows the proxies: the operator's end of the link.
pub trait ProxyView: Send + Sync + 'static {
    /// The proxies that are attached, by the names of their pods.
    fn proxies(&self) -> BTreeMap<String, ProxySeen>;
}

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// How far a roll is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RollState {
    /// Where it is.
    pub phase: RollPhase,
    /// What it waits for, or why it is paused.
    pub reason: String,
}

/// Where a roll is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RollPhase {
    /// Every pod is as it shall be.
    #[default]
    Idle,
    /// Pods are replaced.
    Rolling,
    /// It goes on when the settings change, or the pod comes to itself.
    Paused,
}

/// The parts it works with.
pub(crate) struct RollShell {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) settings: Arc<SettingsSource>,
    pub(crate) pods: Arc<ProxyPods>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) view: Arc<dyn ProxyView>,
    pub(crate) clock: Clock,
    pub(crate) teller: Teller,
    pub(crate) stats: Arc<WorkloadStats>,
    pub(crate) state: watch::Sender<RollState>,
}

/// The `StatefulSet`, as far as it matters.
struct Set {
    reference: ObjectReference,
    replicas: u32,
    /// The revision of the template, if the controller has seen it.
    wanted: Option<String>,
}

impl RollShell {
    pub(crate) async fn run(self) {
        self.pods.synced().await;
        let mut roll = Roll::default();
        let mut lost = LostNodes::default();
        let mut pods_changed = self.pods.subscribe();
        let mut set_changed = self.keeper.subscribe();
        loop {
            pods_changed.mark_unchanged();
            set_changed.mark_unchanged();
            let set = self.keeper.stateful_set().as_deref().and_then(read_set);
            if let Some(set) = set {
                self.turn(&mut roll, &mut lost, &set).await;
            }
            let rolling = self.state.borrow().phase != RollPhase::Idle;
            let pause = if rolling { LOOK_WHILE_ROLLING } else { LOOK_OTHERWISE };
            let news = async {
                let gone = tokio::select! {
                    changed = pods_changed.changed() => changed.is_err(),
                    changed = set_changed.changed() => changed.is_err(),
                };
                if gone {
                    std::future::pending::<()>().await;
                }
            };
            let _news_or_time = timeout(pause, news).await;
        }
    }

    async fn turn(&self, roll: &mut Roll, lost: &mut LostNodes, set: &Set) {
        let pods = self.pods.pods();
        let now = (self.clock)();
        lost.look(&self.client, &pods, now).await;
        self.stats.lost.store(u64::try_from(lost.since.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let settings = self.settings.settings().map_or_else(RollSettings::default, |all| all.proxies.roll);
        let (proxies, lost) = (self.view.proxies(), lost.since());
        let wanted = set.wanted.as_deref();
        let seen =
            Seen { replicas: set.replicas, wanted, pods: &pods, lost: &lost, proxies: &proxies, settings };
        let action = roll.next(&seen, now);
        self.tell(&action, set).await;
        match &action {
            Action::Evict { pod, uid } => self.evict(roll, &seen, pod, uid, now, set).await,
            Action::ForceDelete { pod, uid } => self.force_delete(pod, uid, set).await,
            Action::Wait { .. } | Action::Paused { .. } | Action::Done => {}
        }
    }

    async fn evict(&self, roll: &mut Roll, seen: &Seen<'_>, pod: &str, uid: &str, now: Instant, set: &Set) {
        let delete = DeleteParams { preconditions: Some(only(uid)), ..DeleteParams::default() };
        let params = EvictParams { delete_options: Some(delete), ..EvictParams::default() };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        // A client that tries again by itself what was answered with 429 would hold up everything here for minutes.
        let Ok(answer) = timeout(EVICT_WITHIN, pods.evict(pod, &params)).await else {
            self.stats.evictions_refused.fetch_add(1, Ordering::Relaxed);
            roll.refused(pod, "no answer in time", now);
            return;
        };
        match answer {
            Ok(_) => {
                roll.evicted(pod, uid, seen, now);
                self.stats.evicted.fetch_add(1, Ordering::Relaxed);
                let note = format!("{pod} is replaced: its template is not the wanted one any more");
                self.event(set, Weight::Normal, "ProxyReplaced", "Evict", &note).await;
            }
            // It is gone or another one already; the watch will tell.
            Err(kube::Error::Api(status)) if [NOT_FOUND, CONFLICT].contains(&status.code) => {
                roll.refused(pod, "it has just changed", now);
            }
            Err(error) => {
                self.stats.evictions_refused.fetch_add(1, Ordering::Relaxed);
                let why = match &error {
                    kube::Error::Api(status) if status.code == TOO_MANY_REQUESTS => status.message.clone(),
                    other => other.to_string(),
                };
                tracing::info!(pod, why, "an eviction was refused");
                roll.refused(pod, &why, now);
            }
        }
    }

    async fn force_delete(&self, pod: &str, uid: &str, set: &Set) {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(only(uid)),
            ..DeleteParams::default()
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        match pods.delete(pod, &params).await {
            Ok(_) => {
                self.stats.force_deleted.fetch_add(1, Ordering::Relaxed);
                let note = format!("{pod} is deleted by force: its node is lost, and cannot end it");
                self.event(set, Weight::Warning, "ProxyForceDeleted", "ForceDelete", &note).await;
            }
            Err(kube::Error::Api(status)) if [NOT_FOUND, CONFLICT].contains(&status.code) => {}
            Err(error) => tracing::warn!(pod, %error, "a pod on a lost node could not be deleted"),
        }
    }

    /// Transitions are told; what goes on is not.
    async fn tell(&self, action: &Action, set: &Set) {
        let (phase, reason) = match action {
            // Every change of the set makes that so for a moment, one of its size too: it begins no roll.
            Action::Wait { .. } if set.wanted.is_none() => return,
            Action::Wait { reason, .. } => (RollPhase::Rolling, reason.clone()),
            Action::Evict { pod, .. } => (RollPhase::Rolling, format!("{pod} is next")),
            Action::Paused { reason } => (RollPhase::Paused, reason.clone()),
            Action::Done => (RollPhase::Idle, String::new()),
            // Has nothing to do with a roll.
            Action::ForceDelete { .. } => return,
        };
        let before = self.state.send_replace(RollState { phase, reason: reason.clone() });
        match (before.phase, phase) {
            (RollPhase::Paused, RollPhase::Paused) if before.reason == reason => {}
            (_, RollPhase::Paused) => {
                self.stats.pauses.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(reason, "the roll of the proxies is paused");
                self.event(set, Weight::Warning, "RollPaused", "Roll", &reason).await;
            }
            (RollPhase::Paused, RollPhase::Rolling) => {
                self.event(set, Weight::Normal, "RollResumed", "Roll", &reason).await;
            }
            (RollPhase::Rolling | RollPhase::Paused, RollPhase::Idle) => {
                let note = "every proxy has the wanted template";
                self.event(set, Weight::Normal, "RollFinished", "Roll", note).await;
            }
            (RollPhase::Idle, _) | (RollPhase::Rolling, RollPhase::Rolling) => {}
        }
    }

    async fn event(&self, set: &Set, weight: Weight, reason: &str, action: &str, note: &str) {
        self.teller.tell(&set.reference, weight, reason, action, note).await;
    }
}

fn only(uid: &str) -> Preconditions {
    Preconditions { uid: Some(uid.to_owned()), resource_version: None }
}

fn read_set(set: &DynamicObject) -> Option<Set> {
    let number = |pointer: &str| set.data.pointer(pointer).and_then(serde_json::Value::as_i64);
    let is_seen = number("/status/observedGeneration") == set.metadata.generation;
    let revision = set.data.pointer("/status/updateRevision").and_then(serde_json::Value::as_str);
    Some(Set {
        reference: ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some("StatefulSet".to_owned()),
            name: set.metadata.name.clone(),
            namespace: set.namespace(),
            uid: set.uid(),
            ..ObjectReference::default()
        },
        replicas: u32::try_from(number("/spec/replicas")?).ok()?,
        wanted: revision.filter(|_| is_seen).map(str::to_owned),
    })
}

/// Which pods are on nodes that nobody hears of, and since when. Judged by how long this process has seen it so: clocks of
/// others are not compared with ours.
#[derive(Debug, Default)]
struct LostNodes {
    /// By the pods' names: which one of that name, and since when.
    since: BTreeMap<String, (String, Instant)>,
}

impl LostNodes {
    async fn look(&mut self, client: &Client, pods: &Pods, now: Instant) {
        let nodes: Api<Node> = Api::all(client.clone());
        let mut seen = BTreeMap::new();
        // A pod that is ready and stays is well; its node need not be asked for.
        for pod in pods.values().filter(|pod| !pod.ready || pod.is_ending) {
            let Some(node) = &pod.node else { continue };
            let before = self.since.get(&pod.name).filter(|(uid, _)| *uid == pod.uid);
            let is_lost = match nodes.get_opt(node).await {
                Ok(node) => node.is_none_or(|node| is_unheard_of(&node)),
                Err(error) => {
                    tracing::warn!(%error, node, "the node of a proxy could not be looked at");
                    before.is_some()
                }
            };
            if is_lost {
                let since = before.map_or(now, |(_, since)| *since);
                seen.insert(pod.name.clone(), (pod.uid.clone(), since));
            }
        }
        self.since = seen;
    }

    fn since(&self) -> BTreeMap<String, Instant> {
        self.since.iter().map(|(pod, (_, since))| (pod.clone(), *since)).collect()
    }
}

/// Does the control plane say that it has not heard of the node for too long?
fn is_unheard_of(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "Unknown")
}
