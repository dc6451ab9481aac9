//! How agents get in: bundles with join tokens for owners who ask, and keys of agents who bring a token.
//!
//! An owner asks with an annotation (`request`), and finds the bundle (`bundle`) in a Secret; of its token (`tokens`) only
//! the hash is kept, in an annotation of the instance. An agent that brings the token has its key noted in another one
//! (`admission`), from which the planner takes it. Removing a key there, or in the spec, shuts it out. `making` and the
//! [`Joining`] do it, `store` talks to the API server. No Secret is ever
//! read or changed: they are made, and whoever wants another one deletes the old one.

mod admission;
mod bundle;
mod making;
mod queue;
mod request;
mod store;
mod tokens;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use kube::Client;
use kube::runtime::events::EventType;
use resources::{Observed, RemoteInstance, Timestamp};
use route_table::{Fingerprint, InstanceId};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::names::Names;
use crate::publish::{Enrolments, Refusal, RefusalKind};

use admission::{Admitted, Refused, admit};
use making::MakeError;
use queue::Queue;
use request::{Asked, Step, step};
use store::Store;
use tokens::{TokenHash, Tokens, instance};

pub use bundle::Way;
pub use request::JOIN_ANNOTATION;
pub use store::{BUNDLE_KEY, secret_name};
pub use tokens::{MAX_TOKENS, TOKENS_ANNOTATION as JOIN_TOKENS_ANNOTATION};

/// How often an edit is tried that others get in the way of.
const MAX_TRIES: usize = 5;
/// How long a request waits after a failure, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// Instances that were given tokens by us and may not have come back to us by watching yet.
const MAX_RECENT: usize = 256;
/// The longest a reusable token is not looked at.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

/// What bundles say, and how long their tokens hold.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How agents reach the installation; later bundles say what it is then.
    pub way: watch::Receiver<Arc<Way>>,
    /// The CA that agents are to trust, PEM; empty while it is not known. Later bundles have later ones.
    pub ca: watch::Receiver<Arc<str>>,
    /// How long a token may wait to be used.
    pub token_life: Duration,
}

impl Settings {
    /// How long a token may wait to be used, unless said otherwise.
    pub const TOKEN_LIFE: Duration = Duration::from_hours(24);
}

type Instances = OrdMap<InstanceId, Arc<Observed<RemoteInstance>>>;

/// Answers requests, and lets agents in, for as long as it lives.
#[derive(Debug)]
pub struct Joining {
    shared: Arc<Shared>,
    worker: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    settings: Settings,
    state: Mutex<State>,
    work: Notify,
}

#[derive(Debug, Default)]
struct State {
    planning: Option<Arc<planner::Settings>>,
    /// As they were at the last call.
    seen: Instances,
    queue: Queue,
    failing: BTreeMap<InstanceId, Backoff>,
    /// Whose bundle is being made: its Secret may be there already, and its token not yet.
    making: Option<InstanceId>,
    recent: VecDeque<InstanceId>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Joining {
    /// Begins; nobody asks for anything before [`Joining::consider`]. `identity` is who we are in events.
    pub fn start(client: Client, names: &Names, identity: &str, settings: Settings) -> Arc<Self> {
        let shared = Arc::new(Shared {
            store: Store::new(client, names, identity),
            settings,
            state: Mutex::default(),
            work: Notify::new(),
        });
        let worker = tokio::spawn(work(Arc::clone(&shared)));
        Arc::new(Self { shared, worker })
    }

    /// Looks at what has changed since the last call: who asks for a bundle gets one soon. `planning` says which
    /// instances are this installation's.
    pub fn consider(&self, planning: &Arc<planner::Settings>, instances: &Instances) {
        let mut state = self.shared.state();
        let now = Instant::now();
        if state.planning.as_ref() != Some(planning) {
            state.planning = Some(Arc::clone(planning));
            state.seen = Instances::new();
        }
        let seen = std::mem::replace(&mut state.seen, instances.clone());
        let mut asked = false;
        for difference in seen.diff(instances) {
            match difference {
                DiffItem::Update { old: (_, old), new: (_, new) } if wish(old) == wish(new) => {}
                DiffItem::Add(id, object) | DiffItem::Update { new: (id, object), .. } => {
                    if wish(object).request.is_some() && is_ours(planning, id, object) {
                        state.queue.put(id, now);
                        asked = true;
                    } else {
                        state.queue.remove(id);
                    }
                }
                DiffItem::Remove(id, _) => {
                    state.queue.remove(id);
                    state.failing.remove(id);
                }
            }
        }
        drop(state);
        if asked {
            self.shared.work.notify_one();
        }
    }

    async fn admit(&self, token: Zeroizing<String>, key: Fingerprint) -> Result<InstanceId, Refusal> {
        let hash = TokenHash::of(&token);
        let id = instance(&token).ok_or_else(|| refused(Refused::Unknown))?;
        drop(token);
        let Known { declared, in_the_making } =
            self.shared.may_know(&id, hash).ok_or_else(|| refused(Refused::Unknown))?;
        let unavailable = |error: &dyn std::fmt::Display| {
            tracing::warn!(target: "latchkey::joining", instance = %id, "an agent cannot be let in now: {error}");
            let detail = "The operator cannot note the key at the moment: try again.".to_owned();
            Refusal { kind: RefusalKind::Unavailable, detail }
        };
        let store = &self.shared.store;
        for _ in 0..MAX_TRIES {
            let meta = store.get(&id).await.map_err(|error| unavailable(&error))?;
            let meta = meta.ok_or_else(|| refused(Refused::Unknown))?;
            let annotations = meta.metadata.annotations.clone().unwrap_or_default();
            let changes = match admit(&annotations, &declared, hash, key, wall_clock()) {
                Ok(Admitted::Already) => return Ok(id),
                Ok(Admitted::Write(changes)) => changes,
                // An agent never brings a token again that was refused.
                Err(Refused::Unknown) if in_the_making => {
                    return Err(Refusal::unavailable("The bundle is still being made: try again."));
                }
                Err(why) => return Err(refused(why)),
            };
            let noted = store.annotate(&id, &meta, changes).await.map_err(|error| unavailable(&error))?;
            if let Some(meta) = noted {
                tracing::info!(target: "latchkey::joining", instance = %id, %key, "an agent has joined");
                store
                    .tell(
                        &meta,
                        EventType::Normal,
                        "AgentJoined",
                        format!("An agent with the key {key} has joined."),
                    )
                    .await;
                return Ok(id);
            }
        }
        Err(unavailable(&"the instance changes too often"))
    }
}

impl Enrolments for Joining {
    fn enrol(
        &self,
        token: Zeroizing<String>,
        key: Fingerprint,
    ) -> BoxFuture<'_, Result<InstanceId, Refusal>> {
        Box::pin(self.admit(token, key))
    }
}

/// What is known of an instance whose token somebody brings.
struct Known {
    /// The keys that it declares.
    declared: Vec<Fingerprint>,
    in_the_making: bool,
}

impl Shared {
    /// The instance, if it may have this token. Whoever makes tokens up asks nothing of the API server.
    fn may_know(&self, id: &InstanceId, hash: TokenHash) -> Option<Known> {
        let state = self.state();
        let object = state.seen.get(id)?;
        let tokens = Tokens::read(wish(object).tokens, wall_clock());
        let in_the_making = state.making.as_ref() == Some(id);
        if tokens.find(hash).is_none() && !in_the_making && !state.recent.contains(id) {
            return None;
        }
        let declared = match &**object {
            Observed::Readable(object) => object.spec.agent_keys.clone(),
            Observed::Unreadable(_) => Vec::new(),
        };
        Some(Known { declared, in_the_making })
    }

    /// Looks at one instance, and plans when to look again.
    async fn look(&self, id: &InstanceId) {
        let object = self.state().seen.get(id).cloned();
        let Some(object) = object else { return };
        let life = self.settings.token_life;
        // What is seen may be old, but where there is nothing to do nobody needs to be asked.
        let again = if let Step::Nothing(at) = step(wish(&object), wall_clock(), life) {
            Ok(at)
        } else {
            self.state().making = Some(id.clone());
            making::serve(&self.store, &self.settings, id).await
        };
        if let Some(error) = self.plan(id, again) {
            self.complain(id, &error).await;
        }
    }

    /// Plans when an instance is looked at again. Gives back a failure that its owner has not heard of.
    fn plan(&self, id: &InstanceId, looked: Result<Option<Timestamp>, MakeError>) -> Option<MakeError> {
        let mut state = self.state();
        state.making = None;
        match looked {
            Ok(again) => {
                state.failing.remove(id);
                if state.recent.len() >= MAX_RECENT {
                    state.recent.pop_front();
                }
                state.recent.push_back(id.clone());
                if let Some(at) = again {
                    state.queue.put_if_absent(id, Instant::now() + until(at));
                }
                None
            }
            Err(error) => {
                tracing::warn!(target: "latchkey::joining", instance = %id, "a join bundle cannot be made: {error}; tried again");
                let first = !state.failing.contains_key(id);
                let backoff = state.failing.entry(id.clone()).or_insert(Backoff::new(RETRY.0, RETRY.1));
                let at = Instant::now() + backoff.wait();
                state.queue.put_if_absent(id, at);
                first.then_some(error)
            }
        }
    }

    async fn complain(&self, id: &InstanceId, error: &MakeError) {
        let Ok(Some(meta)) = self.store.get(id).await else { return };
        let note = format!("There is no bundle yet, which is tried again: {error}.");
        let note = note.chars().take(MAX_NOTE).collect();
        self.store.tell(&meta, EventType::Warning, "JoinBundleFailed", note).await;
    }
}

/// Longer notes of events are refused (in bytes; what is in them is mostly ASCII).
const MAX_NOTE: usize = 500;

async fn work(shared: Arc<Shared>) {
    loop {
        let (task, next) = {
            let mut state = shared.state();
            (state.queue.take(Instant::now()), state.queue.next())
        };
        if let Some(id) = task {
            shared.look(&id).await;
            continue;
        }
        let pause = next.unwrap_or_else(|| Instant::now() + LONGEST_SLEEP);
        tokio::select! {
            () = shared.work.notified() => {}
            () = sleep_until(pause) => {}
        }
    }
}

fn wish(object: &Observed<RemoteInstance>) -> Asked<'_> {
    object.about().into()
}

/// Does the installation serve the instance, as far as can be told?
fn is_ours(planning: &planner::Settings, id: &InstanceId, object: &Observed<RemoteInstance>) -> bool {
    let asked = match object {
        Observed::Readable(object) => object.spec.installation.as_str(),
        Observed::Unreadable(nonsense) => nonsense.installation.as_deref().unwrap_or_default(),
    };
    let namespace = id.as_str().split('/').next().unwrap_or_default();
    planner::serves(planning, namespace, asked)
}

fn refused(why: Refused) -> Refusal {
    let kind = match why {
        Refused::Unknown | Refused::Used => RefusalKind::Token,
        Refused::TooMany => RefusalKind::Conflict,
    };
    Refusal { kind, detail: why.to_string() }
}

fn until(at: Timestamp) -> Duration {
    let seconds = at.0.saturating_sub(wall_clock().0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        .clamp(Duration::from_secs(1), LONGEST_SLEEP)
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
