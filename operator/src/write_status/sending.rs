//! The one loop that writes statuses: so many at once, so many a second, and none while the API server asks for patience.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use kube::Client;
use planner::Subject;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::events::Counts;
use super::outbox::{Landing, Outbox, Wanted};
use super::pace::Pace;
use super::write::{Outcome, Way, write};
use super::{STOP_WITHIN, Settings, WAITS, WriterStats};
use crate::backoff::Backoff;
use crate::observe::Objects;
use crate::trouble::Trouble;

/// Longest patience that the API server is granted at a time.
const MAX_PATIENCE: Duration = Duration::from_mins(5);

/// What cannot be done where a single status is refused.
const ONE: &str = "write one status";

/// What was offered last.
#[derive(Debug, Clone, Default)]
pub(super) struct Offer {
    /// Rises with every offer.
    pub(super) number: u64,
    pub(super) wanted: Wanted,
    pub(super) objects: Objects,
    /// Nothing is sent before this.
    pub(super) not_before: Option<Instant>,
}

/// The loop.
pub(super) struct Sending {
    client: Client,
    settings: Settings,
    outbox: Outbox,
    pace: Pace,
    /// Until when nothing is sent while the API server asks for patience, and when that was decided.
    pause: Option<(Instant, Instant)>,
    /// Until when nothing is sent because proxies come first.
    not_before: Option<Instant>,
    /// The last answers were bad: one at a time is tried.
    careful: bool,
    backoff: Backoff,
    trouble: Trouble,
    /// Statuses that were not taken, which is another trouble than an API server that takes none.
    refusals: Trouble,
    next_comparison: Instant,
    stats: WriterStats,
    tell: watch::Sender<WriterStats>,
    events: Arc<Counts>,
}

type Flight = BoxFuture<'static, (Subject, Instant, Outcome)>;

impl Sending {
    pub(super) fn new(
        client: Client,
        settings: Settings,
        tell: watch::Sender<WriterStats>,
        events: Arc<Counts>,
    ) -> Self {
        let now = Instant::now();
        Self {
            client,
            outbox: Outbox::new(settings.max_outbox),
            pace: Pace::new(settings.writes_per_second, settings.burst, now),
            pause: None,
            not_before: None,
            careful: false,
            backoff: Backoff::new(WAITS.0, WAITS.1),
            trouble: Trouble::with("write statuses"),
            refusals: Trouble::with(ONE),
            next_comparison: now + settings.compare_every,
            stats: WriterStats::default(),
            settings,
            tell,
            events,
        }
    }

    pub(super) async fn run(mut self, mut offers: watch::Receiver<Offer>, stop: CancellationToken) {
        let mut flights: FuturesUnordered<Flight> = FuturesUnordered::new();
        loop {
            let wake = self.send(&mut flights);
            self.report();
            tokio::select! {
                () = stop.cancelled() => break,
                changed = offers.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let Offer { number, wanted, objects, not_before } = offers.borrow_and_update().clone();
                    self.not_before = not_before;
                    self.outbox.offer(wanted, objects, Instant::now());
                    self.stats.offers = number;
                }
                Some((subject, sent, outcome)) = flights.next() => self.land(subject, sent, outcome),
                () = sleep_until(wake) => {}
            }
        }
        // What is on its way may arrive; what waits is the next leader's.
        let _ = timeout(STOP_WITHIN, async { while flights.next().await.is_some() {} }).await;
    }

    /// Sends what may be sent, and says when to look again.
    fn send(&mut self, flights: &mut FuturesUnordered<Flight>) -> Instant {
        let now = Instant::now();
        if self.next_comparison <= now {
            self.next_comparison = now + self.settings.compare_every;
            self.outbox.compare_all(now);
            // Another object may be refused for the same by now, which is worth a line.
            self.refusals = Trouble::with(ONE);
        }
        let mut wake = self.next_comparison;
        if let Some((until, _)) = self.pause {
            if until > now {
                return wake.min(until);
            }
            self.pause = None;
        }
        if let Some(until) = self.not_before.filter(|until| *until > now) {
            return wake.min(until);
        }
        let most = if self.careful { 1 } else { self.settings.at_once.max(1) };
        while flights.len() < most {
            let pace = self.pace.next(now);
            if pace > now {
                return wake.min(pace);
            }
            let Some(letter) = self.outbox.next(now) else {
                wake = self.outbox.next_release().map_or(wake, |release| wake.min(release));
                break;
            };
            self.pace.take(now);
            let (client, within) = (self.client.clone(), self.settings.request_within);
            let manager = Arc::clone(&self.settings.manager);
            flights.push(Box::pin(async move {
                let way = Way { client: &client, manager: &manager };
                let outcome = write(way, &letter, within).await;
                (letter.subject, now, outcome)
            }));
        }
        wake
    }

    fn land(&mut self, subject: Subject, sent: Instant, outcome: Outcome) {
        let Outcome { landing, trouble, retry_after } = outcome;
        let now = Instant::now();
        match landing {
            Landing::Written(_) => {
                self.stats.written += 1;
                self.trouble.over();
            }
            Landing::Gone => self.stats.gone += 1,
            Landing::Refused => {
                self.stats.refused += 1;
                if let Some((kind, told)) = &trouble {
                    self.refusals.tell(kind, &format!("that of {subject:?}: {told}"));
                }
            }
            Landing::Later => {
                self.stats.failed += 1;
                if let Some((kind, told)) = &trouble {
                    self.trouble.tell(kind, told);
                }
            }
        }
        if landing == Landing::Later {
            self.be_patient(sent, retry_after, now);
        } else if self.pause.is_none_or(|(_, decided)| sent >= decided) {
            // It listens again.
            self.careful = false;
            self.backoff.reset();
        }
        self.outbox.landed(subject, landing, now);
    }

    /// Several that were sent before the first bad answer make no longer a pause than one.
    fn be_patient(&mut self, sent: Instant, asked: Option<Duration>, now: Instant) {
        let asked = asked.unwrap_or_default().min(MAX_PATIENCE);
        let until = match self.pause {
            Some((until, decided)) if sent < decided => until.max(now + asked),
            _ => now + self.backoff.wait().max(asked),
        };
        self.careful = true;
        self.pause = Some((until, now));
    }

    fn report(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        self.stats.waiting = self.outbox.waiting();
        self.stats.in_flight = self.outbox.flying();
        self.stats.held = self.outbox.held();
        self.stats.dropped = self.outbox.dropped;
        self.stats.contested = self.outbox.contested;
        self.stats.events_written = self.events.written.load(Relaxed);
        self.stats.events_dropped = self.events.dropped.load(Relaxed);
        self.tell.send_replace(self.stats);
    }
}
