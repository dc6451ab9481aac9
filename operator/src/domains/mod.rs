//! Proofs of custom domains: asks DNS whether a domain is meant to be an instance's.
//!
//! `wanted` (which domains), `schedule` (when each is asked about, and what its answers come to), `agenda` (who is next),
//! `answer` (what records say) are pure; `ask` is the resolver, and the [`Prover`] puts them to work. What the planner
//! makes of proofs stands in its `custom_domains`.

mod agenda;
mod answer;
mod ask;
mod schedule;
mod wanted;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use imbl::OrdMap;
use planner::Proof;
use resources::Timestamp;
use route_table::{HostName, InstanceId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use agenda::{Agenda, Moment};
use ask::Asker;
use schedule::Look;
pub use schedule::Timing;
pub use wanted::{Wanted, Wishes};

/// How, and how much, is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who is asked; empty means those of `/etc/resolv.conf`.
    pub name_servers: Vec<SocketAddr>,
    /// How long an answer may take.
    pub time_out: Duration,
    /// How often a question is put before it counts as not answered.
    pub tries: usize,
    /// Questions at once.
    pub at_once: usize,
    /// Domains that may be taken up in a second: ten thousand at a start must not be a flood.
    pub per_second: u32,
    /// Domains at all. More are not asked about, and their owners are told so.
    pub most: usize,
    /// How often.
    pub timing: Timing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name_servers: Vec::new(),
            time_out: Duration::from_secs(5),
            tries: 2,
            at_once: 16,
            per_second: 100,
            most: 100_000,
            timing: Timing::default(),
        }
    }
}

/// Nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum DomainsError {
    /// No setting, and the system has none either.
    #[error("/etc/resolv.conf names no usable name server ({0}): mend it, or name servers in the settings")]
    System(String),
    /// The resolver cannot be made.
    #[error("no resolver for custom domains: {0}")]
    Resolver(String),
}

/// Asks for as long as it lives.
#[derive(Debug)]
pub struct Prover {
    wanted: watch::Sender<Vec<Arc<Wanted>>>,
    told: Arc<Told>,
}

/// What is known, for whoever wants to know.
#[derive(Debug)]
struct Told {
    proofs: Mutex<OrdMap<(HostName, InstanceId), Proof>>,
    changes: watch::Sender<u64>,
}

impl Told {
    fn tell(&self, proofs: &OrdMap<(HostName, InstanceId), Proof>) {
        *self.proofs.lock().unwrap_or_else(PoisonError::into_inner) = proofs.clone();
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Prover {
    /// Begins, with nothing to ask.
    pub fn start(settings: Settings) -> Result<Self, DomainsError> {
        let asker = Asker::new(&settings)?;
        let (wanted, wants) = watch::channel(Vec::new());
        let told = Arc::new(Told { proofs: Mutex::default(), changes: watch::Sender::new(0) });
        let work = Work {
            agenda: Agenda::new(settings.timing, settings.most),
            asker,
            at_once: settings.at_once.max(1),
            pause: Duration::from_secs(1) / settings.per_second.max(1),
            began: Instant::now(),
            told: Arc::clone(&told),
        };
        tokio::spawn(work.run(wants));
        Ok(Self { wanted, told })
    }

    /// What is wanted from now on, all of it. What is not in it is forgotten.
    pub fn want(&self, wanted: Vec<Arc<Wanted>>) {
        self.wanted.send_replace(wanted);
    }

    /// What DNS said of each domain. One that is as it was is not told again.
    pub fn proofs(&self) -> OrdMap<(HostName, InstanceId), Proof> {
        self.told.proofs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever proofs do.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.told.changes.subscribe()
    }
}

/// The task behind a [`Prover`].
struct Work {
    agenda: Agenda,
    asker: Asker,
    at_once: usize,
    /// Between one domain and the next.
    pause: Duration,
    began: Instant,
    told: Arc<Told>,
}

impl Work {
    /// Until nobody can want anything any more.
    async fn run(mut self, mut wants: watch::Receiver<Vec<Arc<Wanted>>>) {
        let mut looks: JoinSet<(Arc<Wanted>, Look)> = JoinSet::new();
        let mut not_before = Moment::ZERO;
        loop {
            let now = self.began.elapsed();
            if looks.len() < self.at_once
                && now >= not_before
                && let Some(task) = self.agenda.take(now)
            {
                not_before = now + self.pause;
                let asker = self.asker.clone();
                looks.spawn(async move {
                    let look = asker.look(&task).await;
                    (task.wanted, look)
                });
                continue;
            }
            let next = self.agenda.next().filter(|_| looks.len() < self.at_once);
            let next = next.map(|due| self.began + due.max(not_before));
            tokio::select! {
                changed = wants.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = wants.borrow_and_update().clone();
                    let before = self.agenda.proofs().clone();
                    self.agenda.want(&wanted, self.began.elapsed());
                    if *self.agenda.proofs() != before {
                        self.told.tell(self.agenda.proofs());
                    }
                }
                Some(looked) = looks.join_next() => {
                    // A look that panicked would be a mistake of ours; its domain waits until it is wanted anew.
                    let Ok((wanted, look)) = looked else { continue };
                    if let Look::Trouble(trouble) = &look {
                        tracing::debug!(domain = %wanted.domain, instance = %wanted.id, trouble, "no answer about a custom domain");
                    }
                    if self.agenda.note(&wanted, look, self.began.elapsed(), wall_clock()) {
                        self.told.tell(self.agenda.proofs());
                    }
                }
                () = at(next), if next.is_some() => {}
            }
        }
    }
}

async fn at(moment: Option<Instant>) {
    if let Some(moment) = moment {
        sleep_until(moment).await;
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
