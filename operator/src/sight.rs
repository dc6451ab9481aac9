//! What the admin page shows: readiness, figures, proxies, and the board of everything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use board::Selection;
use serde_json::json;
use tokio::sync::watch;

use crate::admin::Sight;
use crate::metrics::{Figure, Metrics, Turns, Value};
use crate::names::Names;
use crate::overview::Overview;
use crate::publish::Publisher;
use crate::status_board::{Known, board};
use crate::workload::Workload;
use crate::workload::pods::ProxyPods;
use crate::workload::roll_shell::{RollPhase, RollState};
use crate::workload::settings_source::SettingsSource;
use crate::write_status::StatusWriter;

/// What every replica knows of its installation.
#[derive(Debug)]
pub(crate) struct Whole {
    /// What its objects are called.
    pub(crate) names: Names,
    /// What this process is called.
    pub(crate) identity: String,
    /// The installation's settings.
    pub(crate) source: Arc<SettingsSource>,
    /// The proxies' pods.
    pub(crate) pods: Arc<ProxyPods>,
    /// Who leads, where this process follows.
    pub(crate) leader: watch::Receiver<Option<String>>,
}

/// Sees everything that runs.
#[derive(Debug)]
pub(crate) struct Eyes {
    overview: watch::Receiver<Arc<Overview>>,
    publisher: Arc<Publisher>,
    metrics: Metrics,
    turns: Turns,
    whole: Whole,
    leaders: Arc<Mutex<Option<Leaders>>>,
}

/// Parts that only a leader has.
#[derive(Debug)]
struct Leaders {
    statuses: Arc<StatusWriter>,
    workload: Option<Workload>,
}

impl Eyes {
    /// Of a process that follows, for now.
    pub(crate) fn new(
        overview: &watch::Sender<Arc<Overview>>,
        publisher: &Arc<Publisher>,
        whole: Whole,
    ) -> Self {
        let (turns, leaders) = (Turns::default(), Arc::new(Mutex::new(None)));
        let theirs = Arc::clone(&leaders);
        let more = Box::new(move || {
            let leaders = theirs.lock().unwrap_or_else(PoisonError::into_inner);
            leaders.as_ref().map(figures).unwrap_or_default()
        });
        let metrics = Metrics::new(&turns, overview.subscribe(), Arc::clone(publisher), more);
        Self {
            overview: overview.subscribe(),
            publisher: Arc::clone(publisher),
            metrics,
            turns,
            whole,
            leaders,
        }
    }

    /// It leads from now on, with these. They are held as long as the process leads.
    pub(crate) fn lead(&self, statuses: Arc<StatusWriter>, workload: Option<Workload>) {
        *self.leaders.lock().unwrap_or_else(PoisonError::into_inner) = Some(Leaders { statuses, workload });
    }

    fn leaders(&self) -> MutexGuard<'_, Option<Leaders>> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the driver raises.
    pub(crate) fn turns(&self) -> Turns {
        self.turns.clone()
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody has so much of anything")]
fn figures(leaders: &Leaders) -> Vec<Figure> {
    let Leaders { statuses, workload } = leaders;
    let stats = statuses.stats();
    let counter = |name, help, count| Figure { name, help, value: Value::Counter(count) };
    let gauge = |name, help, now| Figure { name, help, value: Value::Gauge(now) };
    let mut figures = vec![
        gauge("status_outbox", "Objects whose status waits to be written", stats.waiting as f64),
        gauge("status_writes_in_flight", "Statuses being written", stats.in_flight as f64),
        counter("status_writes", "Statuses written", stats.written),
        counter(
            "status_write_failures",
            "Statuses that could not be written; they are tried again",
            stats.failed,
        ),
        counter("events_written", "Events written", stats.events_written),
        counter("events_dropped", "Events for which there was no room", stats.events_dropped),
    ];
    if let Some(workload) = workload {
        let read = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        let stats = workload.stats();
        let phase = workload.roll().borrow().phase;
        let is = |wanted| f64::from(u8::from(phase == wanted));
        figures.extend([
            gauge("roll_in_progress", "Are proxies being replaced?", is(RollPhase::Rolling)),
            gauge(
                "roll_paused",
                "Has a roll stopped because the new proxies do worse?",
                is(RollPhase::Paused),
            ),
            counter("workload_writes", "Objects of the proxies' workload written", read(&stats.applied)),
            counter(
                "workload_write_failures",
                "Objects that could not be written",
                read(&stats.apply_failures),
            ),
            counter("pods_evicted", "Pods asked to leave", read(&stats.evicted)),
            counter("evictions_refused", "Evictions that were told to wait", read(&stats.evictions_refused)),
            counter("pods_force_deleted", "Pods of lost nodes deleted", read(&stats.force_deleted)),
            counter("roll_pauses", "How often a roll was paused", read(&stats.pauses)),
        ]);
    }
    figures
}

impl Sight for Eyes {
    fn readiness(&self) -> (bool, String) {
        let overview = self.overview.borrow();
        (overview.is_ready(), overview.told())
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }

    fn proxies(&self) -> String {
        let proxies = self.publisher.proxies().into_iter().map(|proxy| {
            json!({
                "name": &*proxy.name,
                "version": proxy.version,
                "position": proxy.position.map(|position| position.to_string()),
                "ready": proxy.ready,
                "tunnels": proxy.tunnels,
                "attachedSince": proxy.attached_since.to_string(),
                "lagSeconds": proxy.lag.as_secs_f64(),
            })
        });
        let leaders = self.leaders();
        let roll = leaders.as_ref().and_then(|leaders| leaders.workload.as_ref()).map(|workload| {
            let roll = workload.roll().borrow().clone();
            json!({"phase": format!("{:?}", roll.phase), "reason": roll.reason})
        });
        json!({"proxies": proxies.collect::<Vec<_>>(), "roll": roll}).to_string()
    }

    fn status(&self, selection: &Selection) -> String {
        let overview = self.overview.borrow().clone();
        let Whole { names, identity, source, pods, leader } = &self.whole;
        let settings = source.settings();
        let mut problems: Vec<String> =
            source.problem().iter().map(|problem| problem.error.to_string()).collect();
        let mut roll: Option<RollState> = None;
        if let Some(workload) = self.leaders().as_ref().and_then(|leaders| leaders.workload.as_ref()) {
            roll = Some(workload.roll().borrow().clone());
            problems
                .extend(workload.problems().iter().map(|(object, problem)| format!("{object}: {problem}")));
        }
        let wanted = settings.as_ref().filter(|_| roll.is_some()).map(|settings| settings.proxies.replicas);
        let leader = leader.borrow().clone();
        let known = Known {
            names,
            identity,
            leader: leader.as_deref(),
            overview: &overview,
            domain: settings.map(|settings| settings.spec.domain.to_string()).unwrap_or_default(),
            problems,
            proxies_wanted: wanted.and_then(|wanted| u32::try_from(wanted).ok()),
            pods: &pods.pods(),
            attached: &self.publisher.proxies(),
            roll,
            reports: self.publisher.reports(),
        };
        // Only numbers and texts, which JSON has words for.
        serde_json::to_string(&board(known, selection)).unwrap_or_default()
    }
}
