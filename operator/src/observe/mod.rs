//! What there is: every `RemoteInstance` and `VersionBlock`, kept up with watches.
//!
//! An object that makes no sense is an [`Observed::Unreadable`], so that no object can stop a watch. A set is published
//! whole: [`Observer::synced`] waits for the end of every first list, and a list that had to be made again takes the place
//! of the one before when it has come to its end.
//!
//! **Statuses stand apart.** They are written by the leader itself, and every write comes back by the watch. If that made
//! another object, each status would cost another plan. So [`Objects::instances`] holds objects without status and
//! without `resourceVersion`, and one whose spec, generation, annotations (ours) and deletion are what they were stays the
//! very same `Arc`, in the very same map. What the API server has of a status is kept as a [`Digest`], which is all that
//! [`crate::write_status`] needs to tell whether it differs; sixteen bytes instead of some two thousand. Whole statuses are
//! kept only until [`Observer::take_statuses`]: the first plan of a leader begins with them, and shares them from there on.
//!
//! | what a watch tells | [`Observer::subscribe`] | [`Observer::subscribe_statuses`] |
//! |---|---|---|
//! | another spec, annotation of ours, generation; created; deleted | rises | rises |
//! | another status, label, version, anything else | | rises |
//! | the same again | | |

mod cache;
mod cutting;
mod digest;
mod listed;
mod listing;
mod sharing;
mod watching;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use imbl::OrdMap;
use kube::{Api, Client};
use planner::Subject;
use resources::{Observed, RemoteInstance, RemoteInstanceStatus, VersionBlock, VersionBlockStatus};
use route_table::InstanceId;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use cache::Told;
use cache::{Change, Set};
pub use digest::{Digest, Said};
use watching::Watching;

/// Where to look for instances. Blocks belong to no namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Everywhere.
    #[default]
    All,
    /// In these namespaces alone: then a right to others is not needed.
    Namespaces(BTreeSet<String>),
}

/// All objects at one moment. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Every instance, without its status.
    pub instances: OrdMap<InstanceId, Arc<Observed<RemoteInstance>>>,
    /// Every version block, without its status.
    pub blocks: OrdMap<String, Arc<Observed<VersionBlock>>>,
    /// What the API server has of the instances' statuses.
    pub instances_told: OrdMap<InstanceId, Told>,
    /// What the API server has of the blocks' statuses.
    pub blocks_told: OrdMap<String, Told>,
}

/// Every status at one moment.
#[derive(Debug, Clone, Default)]
pub struct Statuses {
    /// Those of instances.
    pub instances: OrdMap<InstanceId, Arc<RemoteInstanceStatus>>,
    /// Those of version blocks.
    pub blocks: OrdMap<String, Arc<VersionBlockStatus>>,
    /// The objects of whose statuses this installation has told something, whether it serves them now or not.
    pub ours: Vec<Subject>,
}

/// For metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObserverStats {
    /// Instances there are.
    pub instances: usize,
    /// Version blocks there are.
    pub blocks: usize,
    /// Lists that came to their end; more than one for each watch means that watches fell behind.
    pub lists: u64,
    /// Errors of watches.
    pub errors: u64,
}

/// Everything observed. Dropping it ends the watches.
#[derive(Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    _watches: JoinSet<()>,
}

impl Observer {
    /// Begins to watch. `manager` is the field manager by which this installation's statuses are known.
    pub fn start(client: &Client, scope: &Scope, manager: &str) -> Self {
        let namespaces: Vec<Option<String>> = match scope {
            Scope::All => vec![None],
            Scope::Namespaces(namespaces) => namespaces.iter().cloned().map(Some).collect(),
        };
        let shared = Arc::new(Shared::waiting_for(namespaces.len() + 1, &manager.into()));
        let mut watches = JoinSet::new();
        watches.spawn(
            Watching::<VersionBlock> {
                api: Api::all(client.clone()),
                namespace: None,
                shared: Arc::clone(&shared),
                set: |state| &mut state.blocks,
                sees: |_, _| true,
                what: "watch VersionBlocks",
                number: namespaces.len(),
            }
            .run(),
        );
        for (number, namespace) in namespaces.into_iter().enumerate() {
            let api = match &namespace {
                None => Api::all(client.clone()),
                Some(namespace) => Api::namespaced(client.clone(), namespace),
            };
            watches.spawn(
                Watching::<RemoteInstance> {
                    api,
                    namespace,
                    shared: Arc::clone(&shared),
                    set: |state| &mut state.instances,
                    sees: |id, namespace| {
                        id.as_str().strip_prefix(namespace).is_some_and(|rest| rest.starts_with('/'))
                    },
                    what: "watch RemoteInstances",
                    number,
                }
                .run(),
            );
        }
        Self { shared, _watches: watches }
    }

    /// Waits until every first list has come to its end. Before that there is no object.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // Its sender is in `self`, so there is no error.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// All objects; none before [`Observer::synced`].
    pub fn objects(&self) -> Objects {
        if !*self.shared.synced.borrow() {
            return Objects::default();
        }
        self.shared.with(|State { instances, blocks }| Objects {
            instances: instances.objects.clone(),
            blocks: blocks.objects.clone(),
            instances_told: instances.told.clone(),
            blocks_told: blocks.told.clone(),
        })
    }

    /// Every status, for the first plan of a leader; none at the second call. From here on only digests are kept.
    pub fn take_statuses(&self) -> Statuses {
        self.shared.with(|State { instances, blocks }| Statuses {
            instances: instances.take_statuses(),
            blocks: blocks.take_statuses(),
            ours: instances.take_ours().chain(blocks.take_ours()).collect(),
        })
    }

    /// Rises when there is something to plan.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.objects.subscribe()
    }

    /// Rises when the API server has another status of anything: something to compare, nothing to plan.
    pub fn subscribe_statuses(&self) -> watch::Receiver<u64> {
        self.shared.statuses.subscribe()
    }

    /// For metrics.
    pub fn stats(&self) -> ObserverStats {
        let (instances, blocks) =
            self.shared.with(|state| (state.instances.objects.len(), state.blocks.objects.len()));
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ObserverStats {
            instances,
            blocks,
            lists: read(&self.shared.lists),
            errors: read(&self.shared.errors),
        }
    }
}

/// What the watches write and everybody reads.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The watches that have not listed yet.
    unlisted: Mutex<BTreeSet<usize>>,
    synced: watch::Sender<bool>,
    objects: watch::Sender<u64>,
    statuses: watch::Sender<u64>,
    lists: AtomicU64,
    errors: AtomicU64,
}

#[derive(Debug)]
struct State {
    instances: Set<RemoteInstance>,
    blocks: Set<VersionBlock>,
}

impl Shared {
    fn waiting_for(watches: usize, manager: &Arc<str>) -> Self {
        Self {
            state: Mutex::new(State { instances: Set::of(manager), blocks: Set::of(manager) }),
            unlisted: Mutex::new((0..watches).collect()),
            synced: watch::Sender::new(false),
            objects: watch::Sender::new(0),
            statuses: watch::Sender::new(0),
            lists: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut State) -> Change) {
        let change = self.with(change);
        if change == Change::Objects {
            self.objects.send_modify(|count| *count += 1);
        }
        if change != Change::Nothing {
            self.statuses.send_modify(|count| *count += 1);
        }
    }

    fn listed(&self, watch: usize) {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let mut unlisted = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
        if unlisted.remove(&watch) && unlisted.is_empty() {
            self.synced.send_replace(true);
            self.objects.send_modify(|count| *count += 1);
        }
    }

    fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}
