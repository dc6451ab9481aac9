//! The agents that `up` runs in its own process: one for each instance that says where it listens on this machine.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use board::TargetRow;
use latchkey_agent::{
    agent::{Agent, AgentParts, TlsEnd},
    certificates::{Certificates, SelfSigned},
    identity::Identity,
    metrics::Metrics,
    session::{
        SessionSource,
        join::{Bundle, Join},
    },
    settings::Limits,
    state_folder::StateFolder,
    target::{Begun, Target, TargetSpec},
};
use route_table::{Fingerprint, InstanceId, Route};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::page::Page;

/// How often a target is asked whether it answers: while it does, and while it does not.
const PROBE_EVERY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Visitors have this long to finish when an agent is no longer wanted.
const GRACE: Duration = Duration::from_secs(2);

/// Where the annotation says the instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The page that this process serves itself.
    Page,
    /// A server of the owner's.
    At(TargetSpec),
    /// The annotation makes no sense.
    Unreadable(String),
}

impl Wanted {
    /// Reads the annotation `latchkey.dev/target`.
    pub fn read(text: &str) -> Self {
        match text.trim() {
            "page" | "builtin:page" => Self::Page,
            text => text.parse().map_or_else(
                |error| {
                    Self::Unreadable(format!("{error}; or write `page` for a page made by latchkey itself"))
                },
                Self::At,
            ),
        }
    }
}

/// What every agent has in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// Each agent has a folder of its own below it.
    pub folder: PathBuf,
    /// The proxy in this process.
    pub proxy: SocketAddr,
    /// The name its session API answers on.
    pub server_name: String,
    /// The CA of its session API, PEM.
    pub ca: Arc<str>,
    /// Limits of each agent.
    pub limits: Limits,
    /// Told when something that is shown has changed.
    pub news: Arc<Notify>,
}

/// All agents of this process.
#[derive(Debug)]
pub struct Agents {
    common: Common,
    running: BTreeMap<InstanceId, Running>,
    identities: BTreeMap<InstanceId, Result<Arc<Identity>, String>>,
}

#[derive(Debug)]
struct Running {
    wanted: Wanted,
    /// What the proxy knew of the instance when the agent was started.
    route: Route,
    state: Result<Started, String>,
}

#[derive(Debug)]
struct Started {
    agent: Agent,
    probe: Probe,
    _page: Option<Page>,
    _version: watch::Sender<Option<String>>,
}

impl Agents {
    /// None yet.
    pub fn new(common: Common) -> Self {
        Self { common, running: BTreeMap::new(), identities: BTreeMap::new() }
    }

    /// The hash of the key of an instance's agent; the key is made when there is none. To be enrolled before the agent
    /// starts.
    pub fn key(&mut self, id: &InstanceId) -> Result<Fingerprint, String> {
        let identity = self.identity(id)?;
        identity.public_key_sha256().parse().map_err(|error| format!("the agent's key: {error}"))
    }

    fn identity(&mut self, id: &InstanceId) -> Result<Arc<Identity>, String> {
        let folder = self.folder(id);
        let made = self.identities.entry(id.clone()).or_insert_with(|| {
            folder.and_then(|folder| Identity::load_or_make(&folder).map_err(|error| error.to_string()))
        });
        made.clone()
    }

    /// The agent's own folder. An id has no separators but the one, and no part of it can lead elsewhere.
    fn folder(&self, id: &InstanceId) -> Result<StateFolder, String> {
        let name = id.as_str().replacen('/', "_", 1);
        StateFolder::open(&self.common.folder.join(name)).map_err(|error| error.to_string())
    }

    /// Ends agents that are wanted no more. To be called before the proxy hears of it, else they ask it why.
    pub fn retain(&mut self, wanted: impl Fn(&InstanceId) -> bool) {
        let over: Vec<InstanceId> = self.running.keys().filter(|id| !wanted(id)).cloned().collect();
        for id in over {
            if let Some(running) = self.running.remove(&id) {
                end(running);
            }
        }
    }

    /// Starts, restarts and ends agents so that those run that are wanted: `wanted` says where an instance is, the
    /// route what the proxy knows of it. An agent without a tunnel starts anew when its route has changed, so that
    /// nobody waits for its next attempt, and any agent when its names have.
    pub async fn keep(&mut self, wanted: BTreeMap<InstanceId, (Wanted, Route)>) {
        self.retain(|id| wanted.contains_key(id));
        for (id, (wanted, route)) in wanted {
            let keep = self.running.get_mut(&id).is_some_and(|running| {
                let same = *running.route == *route;
                let named = running.route.hostnames == route.hostnames;
                let stays = running.wanted == wanted && named && (same || running.is_connected());
                if stays {
                    running.route = route.clone();
                }
                stays
            });
            if !keep {
                if let Some(old) = self.running.remove(&id) {
                    end(old);
                }
                let state = self.start(&id, &wanted, &route).await;
                if let Err(problem) = &state {
                    tracing::warn!(instance = %id, %problem, "no agent for this instance");
                }
                self.running.insert(id, Running { wanted, route, state });
            }
        }
    }

    async fn start(&mut self, id: &InstanceId, wanted: &Wanted, route: &Route) -> Result<Started, String> {
        let identity = self.identity(id)?;
        let source = Box::new(SelfSigned::new(self.folder(id)?));
        // Known before any session tells them: the first certificate is the right one.
        let names = route.hostnames.iter().map(ToString::to_string).collect();
        let certificates = Certificates::new(source, names).map_err(|error| error.to_string())?;
        let (target, page) = match wanted {
            Wanted::Unreadable(problem) => return Err(problem.clone()),
            Wanted::At(target) => (target.clone(), None),
            Wanted::Page => {
                let page = Page::start(id.as_str(), certificates.clone()).await;
                let page = page.map_err(|error| format!("the page cannot be served: {error}"))?;
                let address = page.address();
                (TargetSpec::Tcp { host: address.ip().to_string(), port: address.port() }, Some(page))
            }
        };
        let bundle = Bundle {
            server: self.common.proxy.to_string(),
            server_name: self.common.server_name.clone(),
            ca: self.common.ca.to_string(),
            join_token: None,
            instance: Some(id.to_string()),
        };
        let (versions, version) = watch::channel(None);
        let parts = AgentParts {
            sessions: SessionSource::Api(Box::new(Join::new(bundle, identity)?)),
            target: target.clone(),
            tls: TlsEnd::Agent { certificates, forwarded_headers: true, http: Handle::current() },
            product: None,
            version,
            limits: self.common.limits.clone(),
            metrics: Arc::new(Metrics::default()),
        };
        let agent = Agent::start(parts, GRACE);
        let probe = Probe::start(target, self.common.news.clone());
        Ok(Started { agent, probe, _page: page, _version: versions })
    }

    /// What to show of an instance's target; `None` where no agent of this process serves it.
    pub fn target(&self, id: &InstanceId) -> Option<TargetRow> {
        let running = self.running.get(id)?;
        let address = match &running.wanted {
            Wanted::Page => "page".to_owned(),
            Wanted::At(target) => target.to_string(),
            Wanted::Unreadable(_) => "?".to_owned(),
        };
        let problem = match &running.state {
            Err(problem) => Some(problem.clone()),
            Ok(started) => started.probe.problem(),
        };
        Some(TargetRow { address, problem })
    }

    /// Ends all of them: visitors may finish for a moment.
    pub async fn end(&mut self) {
        for running in self.running.values() {
            if let Ok(started) = &running.state {
                started.agent.stop();
            }
        }
        for running in std::mem::take(&mut self.running).into_values() {
            if let Ok(mut started) = running.state {
                let _ = tokio::time::timeout(GRACE + Duration::from_secs(3), started.agent.ended()).await;
            }
        }
    }
}

impl Running {
    fn is_connected(&self) -> bool {
        self.state.as_ref().is_ok_and(|started| started.agent.is_connected())
    }
}

/// Visitors finish while the next agent starts already.
fn end(running: Running) {
    let Ok(mut started) = running.state else { return };
    started.agent.stop();
    tokio::spawn(async move {
        let _ = tokio::time::timeout(GRACE + Duration::from_secs(3), started.agent.ended()).await;
    });
}

/// Asks a target again and again whether it answers.
#[derive(Debug)]
struct Probe {
    problem: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Probe {
    fn start(target: TargetSpec, news: Arc<Notify>) -> Self {
        let problem = Arc::new(Mutex::new(None));
        let told = problem.clone();
        let task = tokio::spawn(async move {
            loop {
                let found = answers(&target).await.err();
                let pause = if found.is_none() { PROBE_EVERY.0 } else { PROBE_EVERY.1 };
                let changed = {
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    let changed = *told != found;
                    *told = found;
                    changed
                };
                if changed {
                    news.notify_one();
                }
                tokio::time::sleep(pause).await;
            }
        });
        Self { problem, task }
    }

    fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answers(target: &TargetSpec) -> Result<(), String> {
    // Looked up anew each time: who starts later may have another address.
    let connected = tokio::time::timeout(PROBE_TIME, async {
        match Target::resolve(target.clone()).await.connect().await? {
            Begun::Tcp(_) | Begun::Unix(_) => std::io::Result::Ok(()),
        }
    });
    match connected.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(format!("does not answer ({error}): start what listens there, or correct the annotation"))
        }
        Err(_) => Err(format!("did not answer within {} s", PROBE_TIME.as_secs())),
    }
}
