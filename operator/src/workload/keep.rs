//! Keeps the workload's objects as they shall be: watches each of them by its name and applies what differs, and nothing
//! else. Server-side apply with force: what the settings say is the operator's, the rest is whose it may be.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{Api, DynamicObject, Patch, PatchParams, TypeMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource as _};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::difference::difference;
use super::objects::{ObjectKind, WantedObject, kinds, objects};
use super::settings_source::SettingsSource;
use super::stats::WorkloadStats;
use super::task::Task;
use crate::names::{FIELD_MANAGER, Names};

/// An object that somebody else changes all the time is not fought over more often than this.
const NOT_SOONER: Duration = Duration::from_secs(1);
/// How long an object may take to be written.
const APPLY_WITHIN: Duration = Duration::from_secs(30);
/// How long after a failure the next try comes: twice as long each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// An object in the cluster.
#[derive(Debug, Clone, Default)]
enum Live {
    /// Not heard of yet.
    #[default]
    Unknown,
    Absent,
    Present(Arc<DynamicObject>),
}

/// The objects in the cluster, and what could not be done.
#[derive(Debug, Default)]
struct Known {
    live: BTreeMap<String, Live>,
    problems: BTreeMap<String, String>,
}

/// Keeps the objects.
#[derive(Debug)]
pub(crate) struct Keeper {
    known: Arc<Mutex<Known>>,
    changes: watch::Receiver<u64>,
    stateful_set: String,
    _tasks: Vec<Task>,
}

impl Keeper {
    /// Begins.
    pub(crate) fn start(
        client: &Client,
        names: &Names,
        settings: Arc<SettingsSource>,
        stats: Arc<WorkloadStats>,
    ) -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let (told, changes) = watch::channel(0);
        let told = Arc::new(told);
        let mut stateful_set = String::new();
        let mut tasks = Vec::new();
        for kind in kinds(names) {
            if kind.resource.kind == "StatefulSet" {
                stateful_set = kind.to_string();
            }
            let api = api(client, names, &kind);
            tasks.push(Task::start(follow(api, kind, Arc::clone(&known), Arc::clone(&told))));
        }
        let applier = Applier {
            client: client.clone(),
            names: names.clone(),
            settings,
            stats,
            known: Arc::clone(&known),
            told,
            tries: BTreeMap::new(),
        };
        tasks.push(Task::start(applier.run(changes.clone())));
        Self { known, changes, stateful_set, _tasks: tasks }
    }

    /// The `StatefulSet` as it is in the cluster.
    pub(crate) fn stateful_set(&self) -> Option<Arc<DynamicObject>> {
        match lock(&self.known).live.get(&self.stateful_set) {
            Some(Live::Present(object)) => Some(Arc::clone(object)),
            _ => None,
        }
    }

    /// What cannot be made as it shall be, and why.
    pub(crate) fn problems(&self) -> BTreeMap<String, String> {
        lock(&self.known).problems.clone()
    }

    /// Goes up with each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

fn lock(known: &Mutex<Known>) -> std::sync::MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resource versions grow.
fn version(object: &DynamicObject) -> Option<u64> {
    object.metadata.resource_version.as_ref()?.parse().ok()
}

fn api(client: &Client, names: &Names, kind: &ObjectKind) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &names.namespace, &kind.resource)
}

async fn follow(
    api: Api<DynamicObject>,
    kind: ObjectKind,
    known: Arc<Mutex<Known>>,
    told: Arc<watch::Sender<u64>>,
) {
    let mut stream = std::pin::pin!(watcher::watch_object(api, &kind.name).default_backoff());
    while let Some(seen) = stream.next().await {
        let live = match seen {
            Ok(Some(mut object)) => {
                object.meta_mut().managed_fields = None;
                // What comes in a list does not say what it is.
                object.types = Some(TypeMeta {
                    api_version: kind.resource.api_version.clone(),
                    kind: kind.resource.kind.clone(),
                });
                Live::Present(Arc::new(object))
            }
            Ok(None) => Live::Absent,
            Err(error) => {
                tracing::warn!(%error, object = %kind, "an object of the workload cannot be watched");
                continue;
            }
        };
        lock(&known).live.insert(kind.to_string(), live);
        told.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// When an object was applied, and when it may be again.
#[derive(Debug, Clone, Copy)]
struct Try {
    not_before: Instant,
    failures: u32,
}

struct Applier {
    client: Client,
    names: Names,
    settings: Arc<SettingsSource>,
    stats: Arc<WorkloadStats>,
    known: Arc<Mutex<Known>>,
    told: Arc<watch::Sender<u64>>,
    tries: BTreeMap<String, Try>,
}

impl Applier {
    async fn run(mut self, mut objects_changed: watch::Receiver<u64>) {
        let mut settings_changed = self.settings.subscribe();
        loop {
            objects_changed.mark_unchanged();
            settings_changed.mark_unchanged();
            let again_at = self.turn().await;
            let again = async {
                match again_at {
                    Some(time) => sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            let gone = tokio::select! {
                told = objects_changed.changed() => told.is_err(),
                told = settings_changed.changed() => told.is_err(),
                () = again => false,
            };
            if gone {
                return;
            }
        }
    }

    /// Applies what differs. Returns when to look again at what could not be applied now.
    async fn turn(&mut self) -> Option<Instant> {
        let settings = self.settings.settings()?;
        let wanted = match objects(&self.names, &settings) {
            Ok(wanted) => wanted,
            Err(error) => {
                tracing::error!(%error, "the workload's objects cannot be made");
                return None;
            }
        };
        let mut again_at: Option<Instant> = None;
        for wanted in &wanted {
            let kind = wanted.kind.to_string();
            let Some(differs) = self.differs(&kind, wanted) else {
                self.forget_problem(&kind);
                continue;
            };
            let not_before = self.tries.get(&kind).map(|tried| tried.not_before);
            if not_before.is_none_or(|time| time <= Instant::now()) {
                self.apply(&kind, wanted, &differs).await;
            }
            // Whatever came of it is looked at again, when it may be applied again.
            let next = self.tries.get(&kind).map(|tried| tried.not_before);
            again_at = [again_at, next].into_iter().flatten().min();
        }
        again_at
    }

    /// What is not as it shall be.
    fn differs(&self, kind: &str, wanted: &WantedObject) -> Option<String> {
        match lock(&self.known).live.get(kind)? {
            Live::Unknown => None,
            Live::Absent => Some("it is not there".to_owned()),
            Live::Present(live) => match serde_json::to_value(&**live) {
                Ok(live) => difference(&wanted.object, &live),
                Err(error) => Some(error.to_string()),
            },
        }
    }

    async fn apply(&mut self, kind: &str, wanted: &WantedObject, differs: &str) {
        let api = api(&self.client, &self.names, &wanted.kind);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&wanted.object);
        let applied = timeout(APPLY_WITHIN, api.patch(&wanted.kind.name, &params, &patch)).await;
        let applied = applied.map_err(|_| "no answer in time".to_owned());
        let applied = applied.and_then(|answer| answer.map_err(|error| error.to_string()));
        let failures = self.tries.get(kind).map_or(0, |tried| tried.failures);
        match applied {
            Ok(object) => {
                self.stats.applied.fetch_add(1, Ordering::Relaxed);
                tracing::info!(object = kind, differs, "applied");
                let still = serde_json::to_value(&object)
                    .ok()
                    .and_then(|live: Value| difference(&wanted.object, &live));
                let failures = if still.is_some() { failures.saturating_add(1) } else { 0 };
                self.tried(kind, failures);
                match still {
                    // Somebody changes it on its way in; asking again at once would not help.
                    Some(still) => {
                        self.problem(kind, &format!("{still} is changed by somebody else each time"));
                    }
                    None => self.forget_problem(kind),
                }
                self.learn(kind, object);
            }
            Err(error) => {
                self.stats.apply_failures.fetch_add(1, Ordering::Relaxed);
                self.tried(kind, failures.saturating_add(1));
                self.problem(kind, &error);
            }
        }
    }

    /// What was answered counts until the watch says the same, unless the watch was faster: it would then have nothing more
    /// to say, and what is older would stay.
    fn learn(&self, kind: &str, mut object: DynamicObject) {
        object.meta_mut().managed_fields = None;
        let mut known = lock(&self.known);
        let is_older = match known.live.get(kind) {
            Some(Live::Present(live)) => version(live) >= version(&object),
            _ => false,
        };
        if !is_older {
            known.live.insert(kind.to_owned(), Live::Present(Arc::new(object)));
        }
    }

    fn tried(&mut self, kind: &str, failures: u32) {
        let (first, longest) = RETRY;
        let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let pause = if failures == 0 { NOT_SOONER } else { doubled.min(longest) };
        self.tries.insert(kind.to_owned(), Try { not_before: Instant::now() + pause, failures });
    }

    fn problem(&self, kind: &str, problem: &str) {
        let before = lock(&self.known).problems.insert(kind.to_owned(), problem.to_owned());
        if before.as_deref() != Some(problem) {
            tracing::error!(object = kind, problem, "an object of the workload is not as it shall be");
            self.told.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn forget_problem(&self, kind: &str) {
        let before = lock(&self.known).problems.remove(kind);
        if before.is_some() {
            self.told.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}
