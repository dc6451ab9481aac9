//! Who holds which instance here, and which tunnel a visitor takes.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use hashbrown::HashMap;
use policy::ReportedVersion;
use route_table::{Fingerprint, Route};
use snitun::{cipher::CipherKind, driver::TunnelHandle, token::LatchkeyClaims, version::ProtocolVersion};
use tokio::sync::Notify;

use super::changes::Changes;
use crate::{
    metrics::TunnelOpenResult,
    session_api::{Report, Reports},
    visitor::{clients::Gauge, enter::Visitor},
};

/// A tunnel, as visitors are handed to it.
pub type Tunnel = TunnelHandle<Visitor>;

/// What is known of a session, from its token.
#[derive(Debug)]
pub struct Session {
    /// What it holds: an instance of the table, or hostnames where there is none.
    pub holds: Vec<Arc<str>>,
    /// The hostnames of its token.
    pub names: Vec<String>,
    /// The number of the thread its tunnel lives on.
    pub thread: usize,
    /// Where its agent is.
    pub address: SocketAddr,
    /// Set when the route stopped allowing it: why.
    pub revoked: OnceLock<TunnelOpenResult>,
    /// The route that allowed it when it was last looked at. While the table has this very one, nothing can have changed.
    pub allowed_by: ArcSwapOption<Route>,
    /// Set once the agent said that it understands our words.
    pub ours: Arc<OnceLock<()>>,
    /// Latchkey's own claims; none with a token of another issuer.
    pub claims: Option<LatchkeyClaims>,
    /// The key the agent proved.
    pub proven: Option<Fingerprint>,
    /// The version the agent reported.
    pub reported: Option<ReportedVersion>,
    /// What the agent understands.
    pub protocol: ProtocolVersion,
    /// The cipher of its headers.
    pub cipher: CipherKind,
    /// When it was opened.
    pub opened: SystemTime,
}

impl Session {
    /// The key the agent proved; empty for a stock client, whose sessions are all alike.
    fn key(&self) -> &str {
        self.claims.as_ref().map_or("", |claims| claims.key.as_str())
    }
}

/// A live tunnel of an instance.
#[derive(Clone, Debug)]
pub struct Live {
    /// 1 + the highest number ever seen for the instance: the newest wins, and clocks have no say.
    pub number: u64,
    /// Its handle.
    pub tunnel: Tunnel,
    /// What is known of it.
    pub session: Arc<Session>,
    /// Its agent ends: it takes no new visitors.
    pub leaving: bool,
}

/// An instance that is, or was lately, held here.
#[derive(Debug)]
pub struct Instance {
    /// Its id in the table, or its hostname where there is none.
    pub name: Arc<str>,
    state: Mutex<State>,
    /// Called when a tunnel came.
    pub arrived: Notify,
    /// Visitors that are connected.
    pub visitors: Gauge,
    /// Visitors that wait for a tunnel.
    pub parked: Gauge,
    changes: Arc<Changes>,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<Live>,
    highest: u64,
    lost_at: Option<Instant>,
    reported: Option<ReportedVersion>,
}

/// What came of a claim.
#[derive(Debug)]
pub enum Claim {
    /// The session holds the instance.
    Won {
        /// Its number.
        number: u64,
        /// The sessions it took the place of; to be ended.
        replaced: Vec<Tunnel>,
        /// Those whose agent opened this one beside them; to be drained.
        moved: Vec<Tunnel>,
    },
    /// Agents with other keys hold it; ask whether this one, the oldest of them, is alive.
    HeldBy(Tunnel),
}

impl Instance {
    fn new(name: Arc<str>, changes: Arc<Changes>) -> Self {
        Self {
            name,
            changes,
            state: Mutex::default(),
            arrived: Notify::new(),
            visitors: Gauge::default(),
            parked: Gauge::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the instance for a session whose challenge was answered.
    ///
    /// | live tunnels     | one of them has the newcomer's key | claim                         |
    /// |------------------|------------------------------------|-------------------------------|
    /// | fewer than may be| -                                  | won                           |
    /// | as many          | yes (all stock sessions are alike) | won, the oldest of those goes |
    /// | as many          | yes, and it knows our words        | won, the oldest of those drains |
    /// | as many          | no                                 | held by the oldest            |
    ///
    /// An agent of ours opens a second tunnel beside the first when its version changes, and lets its visitors finish.
    /// If it is another process with the same key, the first hears that there is a conflict and ends by itself;
    /// if it is dead, the heartbeat finds out.
    ///
    /// `evict` names a holder that was asked and did not answer.
    pub fn claim(
        &self,
        session: &Arc<Session>,
        tunnel: &Tunnel,
        allowed: u32,
        evict: Option<&Tunnel>,
    ) -> Claim {
        let mut state = self.lock();
        let (mut replaced, mut moved) = (Vec::new(), Vec::new());
        state.live.retain(|live| {
            let dead = evict.is_some_and(|holder| holder.is_same(&live.tunnel));
            if dead {
                replaced.push(live.tunnel.clone());
            }
            !dead && !live.tunnel.is_closed()
        });
        let allowed = usize::try_from(allowed.max(1)).unwrap_or(usize::MAX);
        while state.live.iter().filter(|live| !live.leaving).count() >= allowed {
            let twin =
                state.live.iter().position(|live| !live.leaving && live.session.key() == session.key());
            let oldest = state.live.iter().find(|live| !live.leaving).map(|live| live.tunnel.clone());
            match (twin, oldest) {
                (Some(twin), _) => match state.live.get_mut(twin) {
                    Some(twin) if twin.session.ours.get().is_some() => {
                        twin.leaving = true;
                        moved.push(twin.tunnel.clone());
                    }
                    _ => replaced.push(state.live.remove(twin).tunnel),
                },
                (None, Some(holder)) if replaced.is_empty() => return Claim::HeldBy(holder),
                _ => break,
            }
        }
        state.highest += 1;
        let number = state.highest;
        state.reported.clone_from(&session.reported);
        state.live.push(Live { number, tunnel: tunnel.clone(), session: session.clone(), leaving: false });
        drop(state);
        self.changes.note(&self.name);
        self.arrived.notify_waiters();
        Claim::Won { number, replaced, moved }
    }

    /// A tunnel ended.
    pub fn release(&self, number: u64, now: Instant) {
        let mut state = self.lock();
        let before = state.live.len();
        state.live.retain(|live| live.number != number);
        let went = state.live.len() < before;
        if went && state.live.is_empty() {
            state.lost_at = Some(now);
        }
        drop(state);
        if went {
            self.changes.note(&self.name);
        }
    }

    /// The agent of a tunnel ends: new visitors go elsewhere.
    pub fn leaving(&self, number: u64) {
        for live in &mut self.lock().live {
            live.leaving |= live.number == number;
        }
    }

    /// The tunnel for the next visitor: of those that stay, the one with the fewest.
    pub fn choose(&self) -> Option<Tunnel> {
        let state = self.lock();
        match state.live.as_slice() {
            [one] => (!one.leaving && !one.tunnel.is_closed()).then(|| one.tunnel.clone()),
            several => several
                .iter()
                .filter(|live| !live.leaving && !live.tunnel.is_closed())
                .min_by_key(|live| live.tunnel.channels())
                .map(|live| live.tunnel.clone()),
        }
    }

    /// Looks at every tunnel there is now.
    pub fn for_each_live(&self, look: impl FnMut(&Live)) {
        self.lock().live.iter().for_each(look);
    }

    /// The tunnels now.
    pub fn live(&self) -> Vec<Live> {
        self.lock().live.clone()
    }

    /// Its agent reported a version, with or without getting a session for it.
    pub fn report(&self, version: ReportedVersion) {
        self.lock().reported = Some(version);
    }

    /// The version its agent reported last.
    pub fn reported(&self) -> Option<ReportedVersion> {
        self.lock().reported.clone()
    }

    /// Was it held here within `window`?
    pub fn held_within(&self, window: Duration, now: Instant) -> bool {
        let state = self.lock();
        !state.live.is_empty()
            || state.lost_at.is_some_and(|lost| now.saturating_duration_since(lost) < window)
    }
}

/// Every instance held here, now or lately.
#[derive(Debug, Default)]
pub struct Registry {
    instances: RwLock<HashMap<Arc<str>, Arc<Instance>, foldhash::fast::RandomState>>,
    changes: Arc<Changes>,
}

impl Registry {
    /// Whose tunnels came or went.
    pub fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// The instance of that name, if it was ever held or asked for.
    pub fn get(&self, name: &str) -> Option<Arc<Instance>> {
        self.instances.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The instance of that name.
    pub fn get_or_add(&self, name: &str) -> Arc<Instance> {
        if let Some(known) = self.get(name) {
            return known;
        }
        let mut instances = self.instances.write().unwrap_or_else(PoisonError::into_inner);
        let name: Arc<str> = name.into();
        instances
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Instance::new(name, self.changes.clone())))
            .clone()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Instance>> {
        self.instances.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Forgets instances that nobody holds, uses or waits for any more. Their numbers start anew, which
    /// is safe when nobody is left to compare with.
    pub fn forget_idle(&self, window: Duration, now: Instant) {
        let mut instances = self.instances.write().unwrap_or_else(PoisonError::into_inner);
        instances.retain(|_, instance| Arc::strong_count(instance) > 1 || instance.held_within(window, now));
        if instances.len() * 4 < instances.capacity() {
            instances.shrink_to_fit();
        }
    }
}

/// What agents tell the session API. An agent that is refused for its version has told which one it
/// is, and its visitors learn at once that nobody will come.
impl Reports for Registry {
    fn reported(&self, report: Report) {
        if let Some(version) = &report.version {
            let version = ReportedVersion::read(version, report.route.product.scheme());
            self.get_or_add(report.route.id.as_str()).report(version);
        }
    }
}
