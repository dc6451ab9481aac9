//! One turn after another, by the leader: observe -> plan -> publish -> write statuses.
//!
//! A turn looks at everything there is at that moment, so nothing is done per object that can be done for all, and a burst
//! of edits makes one plan. What makes a turn necessary is told by counters that the parts raise.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use planner::{Facts, Inventory, Plan, Previous, Timestamp, plan};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::domains::{Prover, Wishes};
use crate::joining::Joining;
use crate::metrics::Turns;
use crate::observe::{Objects, Observer, Statuses};
use crate::overview::Overview;
use crate::publish::Publisher;
use crate::released::Released;
use crate::write_status::{Blocks, StatusWriter};

/// A burst of changes is planned once it was quiet for this long.
const QUIET: Duration = Duration::from_millis(10);
/// ... or once it went on for this long.
const BURST: Duration = Duration::from_millis(60);
/// How long statuses wait for proxies to have the routes they speak of. Without it every edit would be written twice:
/// not in force, in force.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for the first plan of a leader, when every proxy has to find it first.
const FIRST_PATIENCE: Duration = Duration::from_secs(20);
/// From so many routes on, a change of version blocks is published ahead of the plan that tells of it.
const FLEET: usize = 1_000;
/// The passing of time alone makes no turn sooner than this.
const SOONEST: Duration = Duration::from_secs(1);

/// What the driver drives.
#[derive(Debug)]
pub struct Parts {
    /// Objects.
    pub observer: Arc<Observer>,
    /// The installation's settings and seed, as they change.
    pub settings: watch::Receiver<Arc<planner::Settings>>,
    /// Proxies.
    pub publisher: Arc<Publisher>,
    /// Proofs of custom domains.
    pub prover: Arc<Prover>,
    /// Join tokens.
    pub joining: Arc<Joining>,
    /// Statuses and events.
    pub statuses: Arc<StatusWriter>,
    /// Labels given up.
    pub released: Released,
    /// For whoever measures.
    pub turns: Turns,
    /// For whoever looks.
    pub overview: Arc<watch::Sender<Arc<Overview>>>,
}

/// The leader's loop.
#[derive(Debug)]
pub struct Reconciler {
    parts: Parts,
    previous: Option<Previous>,
    /// The objects of the turn before.
    seen: Objects,
    /// The custom domains they ask for.
    wishes: Wishes,
    /// Since when statuses wait for proxies, and for how long they may.
    waiting: Option<(Instant, Duration)>,
    next_run: Option<Timestamp>,
    broken: bool,
}

impl Reconciler {
    /// For a leader that has just begun.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            previous: None,
            seen: Objects::default(),
            wishes: Wishes::default(),
            waiting: Some((Instant::now(), FIRST_PATIENCE)),
            next_run: None,
            broken: false,
        }
    }

    /// Goes on for ever, unless a plan cannot be made; whoever runs it drops it when the lease is lost.
    pub async fn run(mut self) {
        let mut news = News::of(&self.parts);
        let mut statuses = self.parts.observer.subscribe_statuses();
        loop {
            self.turn().await;
            if self.broken {
                return;
            }
            let soonest = Instant::now() + SOONEST;
            loop {
                tokio::select! {
                    () = news.any() => {
                        news.settle().await;
                        break;
                    }
                    () = until(self.next_run, soonest) => break,
                    () = patience_ends(self.waiting) => break,
                    // Nothing to plan, but somebody else may have written a status, or ours have arrived.
                    Ok(()) = statuses.changed() => {
                        self.parts.statuses.observed(&self.parts.observer.objects());
                    }
                }
            }
        }
    }

    async fn turn(&mut self) {
        self.blocks_first().await;
        let now = now();
        let objects = self.parts.observer.objects();
        let settings = Arc::clone(&self.parts.settings.borrow_and_update());
        self.parts.joining.consider(&settings, &objects.instances);
        if let Some(wanted) = self.wishes.read(&settings, &objects.instances) {
            self.parts.prover.want(wanted);
        }
        let facts = Facts {
            proofs: self.parts.prover.proofs(),
            reports: self.parts.publisher.reports(),
            released: self.parts.released.labels().clone(),
            applied: self.parts.publisher.applied(),
        };
        let applied = facts.applied;
        let (instances, blocks) = (objects.instances.clone(), objects.blocks.clone());
        let inventory = Inventory { settings: Arc::clone(&settings), instances, blocks, facts };
        let began = Instant::now();
        let Some(plan) = self.plan(inventory, now).await else { return };
        let planned_in = began.elapsed();
        self.parts.turns.planned(planned_in);
        // Before anybody can take a label that was given up, it is written down that it was.
        if let Err(error) = self.parts.released.keep(&plan.released).await {
            tracing::error!(%error, "labels given up are not kept; a new leader would not know of them");
        }
        self.parts.publisher.publish(settings.spec.domain.clone(), plan.revision, plan.routes.clone());
        self.next_run = plan.next_run;
        self.seen = objects;
        let in_force = applied.revision.is_some_and(|applied| applied >= plan.revision);
        self.tell(&plan, in_force, Blocks::of(&settings));
        self.show(&plan, planned_in);
    }

    /// Version blocks over a fleet are in force before it is worked out what to tell of them: that costs more than all the
    /// rest, and nobody waits for it.
    async fn blocks_first(&mut self) {
        let (blocks, settings) =
            (self.parts.observer.objects().blocks, Arc::clone(&self.parts.settings.borrow()));
        let Some(previous) = self.previous.clone().filter(|_| !self.seen.blocks.ptr_eq(&blocks)) else {
            return;
        };
        let domain = settings.spec.domain.clone();
        let made = tokio::task::spawn_blocking(move || previous.blocks_first(&settings, &blocks)).await;
        let Some(first) = made.ok().flatten().filter(|first| first.routes.len() >= FLEET) else { return };
        let (since, patience) = *self.waiting.get_or_insert_with(|| (Instant::now(), PATIENCE));
        let until = (since + patience).min(Instant::now() + PATIENCE);
        self.parts.statuses.hold(until);
        self.parts.publisher.publish(domain, first.revision, first.routes);
        self.previous = Some(first.previous);
        let _in_time = timeout_at(until, in_force(&self.parts.publisher, first.revision)).await;
    }

    /// The next plan, made where it holds up nobody.
    async fn plan(&mut self, inventory: Inventory, now: Timestamp) -> Option<Plan> {
        let previous = self.previous.take();
        // A leader begins with what the one before told.
        let told = previous.is_none().then(|| {
            let mut told = self.parts.observer.take_statuses();
            self.parts.statuses.adopt(std::mem::take(&mut told.ours));
            told
        });
        let made = tokio::task::spawn_blocking(move || {
            let remember =
                |Statuses { instances, blocks, .. }| Previous::remember(&inventory, instances, blocks);
            let previous = previous.or_else(|| told.map(remember)).unwrap_or_default();
            plan(&inventory, &previous, now)
        });
        match made.await {
            Ok((plan, previous)) => {
                self.previous = Some(previous);
                Some(plan)
            }
            // A mistake of ours. What was decided is gone with it; a process that begins anew finds it in the statuses.
            Err(error) => {
                tracing::error!(%error, "a plan was not made");
                self.broken = true;
                None
            }
        }
    }

    /// Statuses follow routes: they wait until proxies have those, but not for ever.
    fn tell(&mut self, plan: &Plan, in_force: bool, blocks: Blocks) {
        let Some(published) = plan.published(plan.revision) else { return };
        let (since, patience) = *self.waiting.get_or_insert_with(|| (Instant::now(), PATIENCE));
        if !in_force && since.elapsed() < patience {
            self.parts.statuses.hold(since + patience);
        } else {
            self.parts.statuses.offer(published, &self.seen, blocks);
            if in_force {
                self.waiting = None;
            } else {
                // Told as it is; from now on each turn tells, until they have it.
                self.waiting = Some((since, Duration::ZERO));
            }
        }
        self.parts.statuses.tell(published, &self.seen, blocks);
    }

    fn show(&self, plan: &Plan, planned_in: Duration) {
        self.parts.overview.send_modify(|overview| {
            let turns = overview.turns.wrapping_add(1);
            *overview = Arc::new(Overview {
                problem: None,
                revision: Some(plan.revision),
                turns,
                planned_in,
                routes: plan.routes.len(),
                instances: plan.instances.clone(),
                blocks: plan.blocks.clone(),
                ..(**overview).clone()
            });
        });
    }
}

/// Tells when a part has something new.
struct News {
    observer: watch::Receiver<u64>,
    settings: watch::Receiver<Arc<planner::Settings>>,
    publisher: watch::Receiver<u64>,
    prover: watch::Receiver<u64>,
}

impl News {
    fn of(parts: &Parts) -> Self {
        Self {
            observer: parts.observer.subscribe(),
            settings: parts.settings.clone(),
            publisher: parts.publisher.subscribe(),
            prover: parts.prover.subscribe(),
        }
    }

    async fn any(&mut self) {
        // A part that has ended (an error here) ends the process elsewhere; it must not make this a busy loop.
        let gone = tokio::select! {
            changed = self.observer.changed() => changed.is_err(),
            changed = self.settings.changed() => changed.is_err(),
            changed = self.publisher.changed() => changed.is_err(),
            changed = self.prover.changed() => changed.is_err(),
        };
        if gone {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until a burst is over, but not for ever.
    async fn settle(&mut self) {
        let quiet = async { while timeout(QUIET, self.any()).await.is_ok() {} };
        let _over = timeout(BURST, quiet).await;
    }
}

/// The present time, in whole seconds.
pub fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// Waits until every ready proxy has put a revision in force.
async fn in_force(publisher: &Publisher, revision: u64) {
    let mut news = publisher.subscribe();
    loop {
        let applied = publisher.applied();
        let has_it = applied.revision.is_some_and(|applied| applied >= revision);
        if has_it || applied.ready_proxies == 0 || news.changed().await.is_err() {
            return;
        }
    }
}

async fn until(time: Option<Timestamp>, soonest: Instant) {
    let Some(time) = time else { return std::future::pending().await };
    sleep_until(soonest).await;
    // The clock may be set meanwhile: look at it again now and then.
    while now() < time {
        let left = u64::try_from(time.0.saturating_sub(now().0)).unwrap_or(0);
        sleep(Duration::from_secs(left.clamp(1, 60))).await;
    }
}

async fn patience_ends(waiting: Option<(Instant, Duration)>) {
    match waiting {
        Some((since, patience)) if !patience.is_zero() => sleep_until(since + patience).await,
        _ => std::future::pending().await,
    }
}
