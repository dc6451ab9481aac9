//! Tells what became of objects: statuses by server-side apply, where they say something else than the API server has, and
//! events beside them.
//!
//! The leader alone has a [`StatusWriter`]: it is made when a process begins to lead, and dropped when it stops. Whoever
//! plans hands over what is [`Published`] and goes on; nothing waits for the API server. What has to be written waits as
//! names, so that the newest status counts and a burst of a hundred changes of an object is one write.
//!
//! - `outbox` decides what is to be written (pure), `turns` in which order (pure): a fleet is no reason for anybody else to wait.
//! - `sending` is the loop: so many at once, so many a second, none while the API server asks for patience.
//! - `write` is one write and what its answer means.
//! - `events` writes news, `series` says which of them are the same again (pure), `pace` is a rate (pure).
//!
//! An object that makes no sense gets its status, too: the API server validates what a write changes, not what was wrong
//! before (`write` tells how). A status may reach an object that was made anew under the same name a moment before; the
//! watch shows that object, and it gets its own.

mod events;
mod outbox;
mod pace;
mod sending;
mod series;
mod turns;
mod write;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use imbl::OrdMap;
use kube::Client;
use planner::{Published, Subject};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::observe::Objects;
use events::{Counts, News, Teller};
use outbox::Wanted;
use sending::{Offer, Sending};

/// The shortest and the longest wait when the API server takes nothing.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long writes that are on their way may take when there is no leader any more.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// How much is written. The defaults leave an API server room for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who this process is, e.g. the pod's name: events say it.
    pub identity: String,
    /// The installation's field manager: what it told is known by it.
    pub manager: Arc<str>,
    /// Statuses on their way at once.
    pub at_once: usize,
    /// Statuses written a second.
    pub writes_per_second: u32,
    /// Statuses written at once after a time of rest.
    pub burst: u32,
    /// Objects that may wait for their turn. More are dropped and counted, and found again by a comparison of all.
    pub max_outbox: usize,
    /// How long a write may take.
    pub request_within: Duration,
    /// How often everything is compared, in case that something was overlooked.
    pub compare_every: Duration,
    /// Events written a second.
    pub events_per_second: u32,
    /// Events that may wait. More are dropped and counted.
    pub max_events: usize,
}

impl Settings {
    /// The defaults.
    pub fn of(identity: impl Into<String>, manager: impl Into<Arc<str>>) -> Self {
        Self {
            identity: identity.into(),
            manager: manager.into(),
            at_once: 16,
            writes_per_second: 200,
            burst: 400,
            max_outbox: 100_000,
            request_within: Duration::from_secs(10),
            compare_every: Duration::from_mins(10),
            events_per_second: 50,
            max_events: 1_000,
        }
    }
}

/// Who tells of version blocks. One is seen by every installation of a cluster, and counts differ: the installation that
/// serves by default tells its own, and the settings may change which one that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// This installation.
    Ours,
    /// Not this one.
    AnotherInstallations,
}

impl Blocks {
    /// As an installation's settings say.
    pub fn of(settings: &planner::Settings) -> Self {
        if settings.spec.default { Self::Ours } else { Self::AnotherInstallations }
    }
}

/// For metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterStats {
    /// The last offer that was looked at.
    offers: u64,
    /// Objects that wait for their turn.
    pub waiting: usize,
    /// Writes on their way.
    pub in_flight: usize,
    /// Objects left alone for a while: refused, gone, or changed by somebody else.
    pub held: usize,
    /// Statuses written.
    pub written: u64,
    /// Writes whose object was not there any more.
    pub gone: u64,
    /// Writes that were refused for what is in them.
    pub refused: u64,
    /// Writes that failed for other reasons, and are tried again.
    pub failed: u64,
    /// Objects that found no room.
    pub dropped: u64,
    /// Statuses that somebody else changed.
    pub contested: u64,
    /// Events written.
    pub events_written: u64,
    /// Events dropped.
    pub events_dropped: u64,
}

/// What writes. Dropping it stops it: what waits is not written, what is on its way may arrive.
#[derive(Debug)]
pub struct StatusWriter {
    offers: watch::Sender<Offer>,
    news: mpsc::Sender<News>,
    counts: Arc<Counts>,
    stats: watch::Receiver<WriterStats>,
    earlier: OnceLock<Arc<[Subject]>>,
    sending: JoinHandle<()>,
    telling: Telling,
    stop: DropGuard,
}

/// The task that writes events. It ends with its owner, wherever it is.
#[derive(Debug)]
struct Telling(JoinHandle<()>);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl StatusWriter {
    /// Begins to write, for a process that leads.
    pub fn start(client: &Client, settings: Settings) -> Self {
        let stop = CancellationToken::new();
        let (tell, stats) = watch::channel(WriterStats::default());
        let (offers, offered) = watch::channel(Offer::default());
        let (news, told) = mpsc::channel(settings.max_events.max(1));
        let counts = Arc::new(Counts::default());
        let teller = Teller::new(client.clone(), settings.clone(), Arc::clone(&counts));
        let telling = Telling(tokio::spawn(teller.run(told, offers.subscribe())));
        let sending = Sending::new(client.clone(), settings, tell, Arc::clone(&counts));
        let sending = tokio::spawn(sending.run(offered, stop.clone()));
        let (earlier, stop) = (OnceLock::new(), stop.drop_guard());
        Self { offers, news, counts, stats, earlier, sending, telling, stop }
    }

    /// Of which objects this installation told something before this process led: with the first plan that is offered,
    /// what it told of those that it serves no more is taken back. Once, before that.
    pub fn adopt(&self, earlier: Vec<Subject>) {
        let _ = self.earlier.set(earlier.into());
    }

    /// Another plan was published: its statuses are to be told. `objects` is what it was made of, or newer. What was
    /// offered before and is not any more, though its object is there, is taken back.
    pub fn offer(&self, published: Published<'_>, objects: &Objects, blocks: Blocks) {
        self.offers.send_modify(|offer| {
            offer.number += 1;
            let blocks = match blocks {
                Blocks::Ours => published.blocks().clone(),
                Blocks::AnotherInstallations => OrdMap::new(),
            };
            let earlier = self.earlier.get().cloned().unwrap_or_default();
            offer.wanted = Wanted { instances: published.instances().clone(), blocks, earlier };
            offer.objects = objects.clone();
            offer.not_before = None;
        });
    }

    /// Until this time, or the next offer, nothing is sent, events neither. A table is on its way to the proxies: what it
    /// cuts is to be cut first, and the API server may share their machine.
    pub fn hold(&self, until: Instant) {
        self.offers.send_if_modified(|offer| offer.not_before.replace(until) != Some(until));
    }

    /// Tells what happened with a plan; once for each plan.
    pub fn tell(&self, published: Published<'_>, objects: &Objects, blocks: Blocks) {
        for event in published.events() {
            if matches!(event.about, Subject::Block(_)) && blocks == Blocks::AnotherInstallations {
                continue;
            }
            let uid = outbox::uid(objects, &event.about);
            if self.news.try_send(News { event: event.clone(), uid }).is_err() {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The API server has other statuses than before, and there is no other plan: what somebody changed is set right, and
    /// what was written is known to have arrived.
    pub fn observed(&self, objects: &Objects) {
        self.offers.send_modify(|offer| {
            offer.number += 1;
            offer.objects = objects.clone();
        });
    }

    /// Waits until there is nothing to write now: nothing waits, nothing is on its way.
    pub async fn idle(&self) {
        let mut stats = self.stats.clone();
        let offered = self.offers.borrow().number;
        // Its sender ends with the task, and then nothing is written any more.
        let _ = stats
            .wait_for(|stats| stats.offers >= offered && stats.waiting == 0 && stats.in_flight == 0)
            .await;
    }

    /// For metrics.
    pub fn stats(&self) -> WriterStats {
        let mut stats = *self.stats.borrow();
        stats.events_written = self.counts.written.load(Ordering::Relaxed);
        stats.events_dropped = self.counts.dropped.load(Ordering::Relaxed);
        stats
    }

    /// Stops, and waits until what is on its way has arrived, or too long.
    pub async fn stop(self) {
        let Self { offers, news, sending, telling, stop, .. } = self;
        drop((offers, news, telling, stop));
        let _ = timeout(STOP_WITHIN * 2, sending).await;
    }
}
