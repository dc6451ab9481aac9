//! One process leads: the one whose name stands in a `Lease`.
//!
//! | who | does | when |
//! |---|---|---|
//! | anybody else | reads the record | every [`Timing::retry`], somewhat spread |
//! | anybody else | takes it over | nobody is named in it, or it has not changed for [`Timing::duration`] |
//! | the leader | renews it | every [`Timing::retry`]; a request without an answer leaves time for another |
//! | the leader | has lost it | not renewed for [`Timing::renew_deadline`], another is named in it, or it was deleted |
//! | the leader | takes its name out | [`Leading::release`] |
//!
//! Two never lead at once as long as their clocks run equally fast: the leader counts from the moment it *sent* its last
//! renewal and gives up after the deadline; the others count from the moment they *received* the record and wait for the
//! longer duration. No time that another machine wrote is looked at. A leader that was stopped in between (a frozen
//! virtual machine) may still send something afterwards: for that there is the term, which proxies compare. It rises with
//! every process that begins to lead.
//!
//! Every write names the version of the record that it replaces, so that of two at once one is refused.

mod record;
mod store;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::jiff;
use kube::Client;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::names::Names;
use crate::trouble::Trouble;
use record::{Standing, holder, next_term, released, renewed, taken, term};
use store::{Store, StoreError};

/// How long a release may take: the process is about to end.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// When what is done. The defaults are those of Kubernetes' own controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait for a sign of life before they take over. At least a second.
    pub duration: Duration,
    /// How long the leader goes on without having renewed. Less than `duration`.
    pub renew_deadline: Duration,
    /// How long to wait before another try. Less than `renew_deadline`.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { duration: seconds(15), renew_deadline: seconds(10), retry: seconds(2) }
    }
}

impl Timing {
    /// How long a request may take. The leader's first begins [`Timing::retry`] after the last that worked, and another
    /// retry follows an answer that never came: two fifths leave as much for a second request as for a slow API server.
    fn request(&self) -> Duration {
        self.renew_deadline * 2 / 5
    }

    /// Up to a fifth more or less, so that contenders do not ask in step.
    fn spread_retry(&self) -> Duration {
        self.retry.mul_f64(rand::random_range(0.8..1.2))
    }
}

/// Why a leader leads no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The API server took no renewal in time.
    #[error("the Lease could not be renewed in time: {0}")]
    NotRenewed(String),
    /// Somebody else is named in the Lease.
    #[error("the Lease was taken by {0}")]
    Taken(String),
    /// The Lease is gone.
    #[error("the Lease was deleted")]
    Deleted,
}

/// What is known of the Lease, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseStats {
    /// When the last renewal that worked was sent.
    pub renewed: Instant,
    /// Renewals that worked.
    pub renewals: u64,
    /// Tries that failed.
    pub failures: u64,
}

/// The way to lead.
#[derive(Debug)]
pub struct Leadership;

impl Leadership {
    /// Waits until this process leads. `identity` says who it is to whoever looks at the Lease, e.g. the pod's name;
    /// something random is added, so that a process never takes another of the same name for itself.
    ///
    /// Whatever goes wrong is told and tried again. Dropping the future gives up.
    pub async fn acquire(client: Client, names: &Names, identity: &str, timing: Timing) -> Leading {
        Self::contend(client, names, identity, timing, &watch::Sender::default()).await
    }

    /// The same, and says meanwhile who leads: what that process calls itself.
    pub async fn contend(
        client: Client,
        names: &Names,
        identity: &str,
        timing: Timing,
        leader: &watch::Sender<Option<String>>,
    ) -> Leading {
        let store = Store::new(client, names);
        let identity = format!("{identity}_{:016x}", rand::random::<u64>());
        let mut trouble = Trouble::with("ask for the Lease that makes one operator the leader");
        let mut standing = Standing::default();
        loop {
            let free = match try_to_take(&store, &identity, &timing, &mut standing).await {
                Ok(Attempt::Leads(lease, sent)) => {
                    trouble.over();
                    return Leading::begin(store, lease, sent, timing);
                }
                Ok(Attempt::Held { until, by }) => {
                    trouble.over();
                    leader.send_if_modified(|known| {
                        let news = *known != by;
                        *known = by;
                        news
                    });
                    Some(until)
                }
                // Somebody was faster, or took it away: the next look shows.
                Err(StoreError::Conflict | StoreError::Gone) => None,
                Err(error) => {
                    trouble.tell(&error.kind(), &error);
                    None
                }
            };
            let next = Instant::now() + timing.spread_retry();
            sleep_until(free.map_or(next, |free| next.min(free))).await;
        }
    }
}

/// What a process calls itself: its identity without what is random in it.
fn own_name(identity: &str) -> String {
    identity.rsplit_once('_').map_or(identity, |(name, _)| name).to_owned()
}

enum Attempt {
    /// We lead, by a write that was sent then.
    Leads(Box<Lease>, Instant),
    /// Somebody else does, until then at least.
    Held { until: Instant, by: Option<String> },
}

async fn try_to_take(
    store: &Store,
    identity: &str,
    timing: &Timing,
    standing: &mut Standing,
) -> Result<Attempt, StoreError> {
    let until = |timing: &Timing| Instant::now() + timing.request();
    let found = store.read(until(timing)).await?;
    let read = Instant::now();
    let spec = found.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
    // A write of ours may have worked without an answer.
    let ours = holder(&spec) == Some(identity);
    let free = standing.look(&spec, timing, read);
    if !ours && free > read {
        return Ok(Attempt::Held { until: free, by: holder(&spec).map(own_name) });
    }
    let now = jiff::Timestamp::now();
    let wanted = if ours { Some(term(&spec)) } else { next_term(term(&spec), now) };
    let Some(wanted) = wanted else {
        tracing::error!("the Lease's leaseTransitions cannot be raised any more: delete the Lease");
        return Ok(Attempt::Held { until: read + timing.duration, by: None });
    };
    let record = taken(identity, wanted, timing, now);
    let sent = Instant::now();
    let lease = match &found {
        Some(known) => store.replace(known, record, until(timing)).await?,
        None => store.create(record, until(timing)).await?,
    };
    Ok(Attempt::Leads(Box::new(lease), sent))
}

/// This process leads, until [`Leading::lost`]. Dropping it stops the renewals without giving the Lease back: others wait
/// for its whole duration then.
#[derive(Debug)]
pub struct Leading {
    term: u64,
    timing: Timing,
    loss: watch::Receiver<Option<Loss>>,
    stats: watch::Receiver<LeaseStats>,
    release: Option<oneshot::Sender<()>>,
    renewing: JoinHandle<()>,
}

impl Leading {
    fn begin(store: Store, lease: Box<Lease>, sent: Instant, timing: Timing) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let (tell_loss, loss) = watch::channel(None);
        let (tell_stats, stats) = watch::channel(LeaseStats { renewed: sent, renewals: 0, failures: 0 });
        let (release, released) = oneshot::channel();
        let term = u64::try_from(term(&spec)).unwrap_or_default();
        let holder = holder(&spec).unwrap_or_default().to_owned();
        tracing::info!(term, holder, "this process leads");
        let renewing =
            Renewing { store, lease: *lease, spec, sent, timing, loss: tell_loss, stats: tell_stats };
        let renewing = tokio::spawn(renewing.run(released));
        Self { term, timing, loss, stats, release: Some(release), renewing }
    }

    /// Which leader this is: higher than any before.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Does it lead still? For a look right before something that cannot be taken back.
    pub fn holds(&self) -> bool {
        self.loss.borrow().is_none() && self.stats.borrow().renewed.elapsed() < self.timing.renew_deadline
    }

    /// Waits until it leads no more. The process should end then.
    pub async fn lost(&self) -> Loss {
        let mut loss = self.loss.clone();
        match loss.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(loss)) => loss.clone(),
            // The task is gone without a word, as when the runtime ends.
            Ok(None) | Err(_) => Loss::NotRenewed("nobody renews it".to_owned()),
        }
    }

    /// Gives the Lease back, so that the next has it at once. Stop everything that writes or publishes before.
    pub async fn release(mut self) {
        if let Some(release) = self.release.take() {
            let _ = release.send(());
        }
        let _ = tokio::time::timeout(RELEASE_WITHIN, &mut self.renewing).await;
    }

    /// For metrics.
    pub fn stats(&self) -> LeaseStats {
        *self.stats.borrow()
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// What renews the record.
struct Renewing {
    store: Store,
    /// The record as we wrote it last, with its version.
    lease: Lease,
    spec: LeaseSpec,
    /// When the last write that worked was sent.
    sent: Instant,
    timing: Timing,
    loss: watch::Sender<Option<Loss>>,
    stats: watch::Sender<LeaseStats>,
}

impl Renewing {
    async fn run(mut self, mut release: oneshot::Receiver<()>) {
        let mut trouble = Trouble::with("renew the Lease");
        let mut last = "no renewal was tried".to_owned();
        let mut next = self.sent + self.timing.retry;
        let loss = loop {
            let deadline = self.sent + self.timing.renew_deadline;
            tokio::select! {
                asked = &mut release => {
                    // Dropped without being asked: there is nobody to hear of anything.
                    if asked.is_ok() { self.give_back().await }
                    return;
                }
                () = sleep_until(next.min(deadline)) => {}
            }
            let now = Instant::now();
            if now >= deadline {
                break Loss::NotRenewed(last);
            }
            let until = deadline.min(now + self.timing.request());
            match self.renew(until).await {
                Ok(()) => {
                    trouble.over();
                    next = now + self.timing.retry;
                    self.sent = now;
                    self.stats.send_modify(|stats| {
                        stats.renewed = now;
                        stats.renewals += 1;
                    });
                }
                Err(Failure::Lost(loss)) => break loss,
                Err(Failure::Again(error)) => {
                    trouble.tell(&error.kind(), &error);
                    last = error.to_string();
                    next = Instant::now() + self.timing.spread_retry();
                    self.stats.send_modify(|stats| stats.failures += 1);
                }
            }
        };
        tracing::error!("this process leads no more: {loss}");
        self.loss.send_replace(Some(loss));
    }

    async fn renew(&mut self, until: Instant) -> Result<(), Failure> {
        let spec = renewed(&self.spec, jiff::Timestamp::now());
        match self.store.replace(&self.lease, spec.clone(), until).await {
            Err(StoreError::Conflict) => self.look(until).await?,
            written => {
                self.lease = written?;
                return Ok(());
            }
        }
        // Still ours: a renewal had worked without an answer, or somebody changed its labels.
        self.lease = self.store.replace(&self.lease, spec, until).await?;
        Ok(())
    }

    /// Who is named in it now?
    async fn look(&mut self, until: Instant) -> Result<(), Failure> {
        let Some(lease) = self.store.read(until).await? else { return Err(Failure::Lost(Loss::Deleted)) };
        let found = lease.spec.clone().unwrap_or_default();
        if holder(&found) != holder(&self.spec) || term(&found) != term(&self.spec) {
            let by = holder(&found).unwrap_or("nobody");
            return Err(Failure::Lost(Loss::Taken(by.to_owned())));
        }
        self.lease = lease;
        Ok(())
    }

    async fn give_back(&self) {
        let spec = released(&self.spec, jiff::Timestamp::now());
        match self.store.replace(&self.lease, spec, Instant::now() + RELEASE_WITHIN).await {
            Ok(_) => tracing::info!("gave the Lease back"),
            Err(error) => tracing::warn!("could not give the Lease back, so others wait for it: {error}"),
        }
    }
}

enum Failure {
    Lost(Loss),
    Again(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Gone => Self::Lost(Loss::Deleted),
            error => Self::Again(error),
        }
    }
}
