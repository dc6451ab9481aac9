//! Routes to the proxies, and what they see back to us.
//!
//! [`Publisher`] holds what there is to tell and what was heard; [`serve`] takes the proxies' connections. The contract is
//! `proto/latchkey/link/v1/link.proto`. The pure parts: `history` (the last tables), `session` (what one stream is told
//! next), `told` and `facts` (what proxies see, merged), `roster` (who is there, and what they have put in force). The
//! shell around them: `stream` (one proxy's stream), `server` (connections), `tls` (whom we let in).
//!
//! Nobody waits for a slow proxy. A stream looks at what stands whenever its proxy has answered; tables are compared and
//! encoded by the stream itself, part by part, without any lock.

mod changes;
mod counters;
mod enrol;
mod facts;
mod history;
mod limits;
mod roster;
mod server;
mod session;
mod standing;
mod stream;
mod tls;
mod told;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use imbl::OrdMap;
use operator_link::Position;
use operator_link::limits::MAX_TOKEN_KEYS;
use planner::{Applied, Ordered, Report, Timestamp};
use route_table::{HostName, InstanceId, Route};
use tokio::sync::watch;
use zeroize::Zeroizing;

pub use counters::Counters;
pub use enrol::{Enrolments, Refusal, RefusalKind};
pub use limits::Limits;
pub use roster::ProxyState;
pub use server::{ServerTls, serve};
pub(crate) use tls::names as certificate_names;
pub use tls::{TlsError, server_config};

use counters::Counting;
use facts::{Batch, Facts};
use history::{History, Published};
use roster::{Arrival, Roster};
use standing::{Standing, TokenKeys};

/// So many instances are looked at before others get the lock.
const AT_ONCE: usize = 1_000;

/// What proxies are told, and what they tell.
#[derive(Debug)]
pub struct Publisher {
    limits: Limits,
    standing: watch::Sender<Standing>,
    roster: Mutex<Roster>,
    facts: Mutex<Facts>,
    changes: watch::Sender<u64>,
    counting: Counting,
}

impl Publisher {
    /// A publisher that does not lead, and has nothing to tell.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            standing: watch::Sender::default(),
            roster: Mutex::default(),
            facts: Mutex::default(),
            changes: watch::Sender::default(),
            counting: Counting::default(),
        })
    }

    /// We lead from now on, in this term. Proxies are welcomed; tables follow by [`Publisher::publish`].
    pub fn lead(&self, term: u64) {
        self.standing.send_modify(|standing| {
            *standing = Standing { term: Some(term), keys: standing.keys.take(), ..Standing::default() };
        });
        self.changed();
    }

    /// We lead no more: every proxy is told.
    pub fn resign(&self) {
        self.standing.send_modify(|standing| standing.term = None);
        self.changed();
    }

    /// The table that proxies should have. Of several published quickly, a proxy may only see the last.
    pub fn publish(&self, domain: HostName, revision: u64, routes: Ordered<InstanceId, Route>) {
        let (term, mut history) = {
            let standing = self.standing.borrow();
            (standing.term, History::clone(&standing.history))
        };
        let Some(term) = term else {
            tracing::error!(target: "latchkey::publish", revision, "a table is not published: we do not lead");
            return;
        };
        let position = Position { term, revision };
        // Compared here, so that nobody who looks at what stands has to wait for it.
        if !history.push(Published { position, domain, routes, at: Instant::now(), step: None }, &self.limits)
        {
            return;
        }
        self.counting.published.one();
        self.standing.send_if_modified(|standing| {
            let leads = standing.term == Some(term);
            if leads {
                standing.history = Arc::new(history);
            }
            leads
        });
    }

    /// What seals and opens tokens, the newest first.
    pub fn set_token_keys(&self, mut keys: Vec<Zeroizing<[u8; 32]>>) {
        keys.truncate(MAX_TOKEN_KEYS);
        let keys = Arc::new(TokenKeys(keys));
        self.standing.send_if_modified(|standing| {
            let news = standing.keys.as_ref() != Some(&keys);
            if news {
                standing.keys = Some(keys);
            }
            news
        });
    }

    /// The proxies' pods, and which of them are ready. Without this, whoever is attached and says so counts as ready.
    pub fn expect_pods(&self, pods: BTreeMap<String, bool>) {
        if lock(&self.roster).expect(pods) {
            self.changed();
        }
    }

    /// What proxies see of every instance.
    pub fn reports(&self) -> OrdMap<InstanceId, Arc<Report>> {
        lock(&self.facts).reports()
    }

    /// What every ready proxy has put in force.
    pub fn applied(&self) -> Applied {
        let term = self.standing.borrow().term;
        lock(&self.roster).in_force(term)
    }

    /// Who is attached.
    pub fn proxies(&self) -> Vec<ProxyState> {
        let history = Arc::clone(&self.standing.borrow().history);
        lock(&self.roster).attached(|position| history.behind_since(position))
    }

    /// Goes up when reports, what is in force, or proxies may have changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counting.read()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Takes a batch of facts.
    async fn take_facts(&self, proxy: &Arc<str>, batch: Batch) {
        self.counting.batches.one();
        let history = Arc::clone(&self.standing.borrow().history);
        let table = history.newest().map(|newest| &newest.routes);
        let taken = lock(&self.facts).take(proxy, batch, table, self.limits.strangers, now());
        self.counting.facts_dropped.add(taken.dropped);
        if taken.changed {
            self.changed();
        }
        for part in taken.unnamed.chunks(AT_ONCE) {
            if lock(&self.facts).forget(proxy, part) {
                self.changed();
            }
            tokio::task::yield_now().await;
        }
    }

    /// A proxy was away for too long: its tunnels are down, unless it comes back while we say so.
    async fn give_up(&self, proxy: &Arc<str>) {
        if !lock(&self.roster).is_gone(proxy) {
            return;
        }
        self.changed();
        let held = lock(&self.facts).held_by(proxy);
        for part in held.chunks(AT_ONCE) {
            if !lock(&self.roster).is_gone(proxy) {
                return;
            }
            if lock(&self.facts).cut(proxy, part, now()) {
                self.changed();
            }
            tokio::task::yield_now().await;
        }
    }

    fn attach(&self, arrival: Arrival) -> (u64, tokio_util::sync::CancellationToken) {
        let attached = lock(&self.roster).attach(arrival, now());
        self.counting.streams.one();
        self.changed();
        attached
    }
}

/// A thread that panicked left nothing half done that matters: every change is made in one go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX))
}
