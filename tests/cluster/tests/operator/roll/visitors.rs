//! Visitors that never stop, and what they saw.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use latchkey_cluster_tests::TestError;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{ADMIN_PORT, PUBLIC_PORT};
use crate::kubelet::Running;
use crate::support::{Visitor, get};

/// Between two visits of one visitor.
const PAUSE: Duration = Duration::from_millis(40);
/// How often a visitor that waits looks where the tunnel is, and how long a handshake may take where it was.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const UNDER_WAY: Duration = Duration::from_secs(1);
/// How long visitors wait for a tunnel that is away.
const PARKED: Duration = Duration::from_secs(20);
/// Failures that are kept to be shown.
const SHOWN: usize = 5;

/// Who knows the pods.
pub(super) type Pods = Arc<dyn Fn() -> Vec<Running> + Send + Sync>;

#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) served: u64,
    /// Those of them who had to wait, or went after a tunnel that had just moved.
    pub(super) delayed: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<String>,
}

/// One for each host, who comes, reads the page and goes, over and over.
pub(super) struct Visitors {
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Visitors {
    /// `guests` are instances, their hosts and what stands on their pages.
    pub(super) fn start(pods: &Pods, guests: Vec<(String, String, String)>) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let mut tasks = JoinSet::new();
        for (instance, host, page) in guests {
            let (seen, pods) = (Arc::clone(&seen), Arc::clone(pods));
            tasks.spawn(async move {
                loop {
                    let visited = visit(&pods, &instance, &host).await;
                    let visited = visited.and_then(|(found, detours)| {
                        if found == page { Ok(detours) } else { Err(format!("another page: {found}").into()) }
                    });
                    count(&seen, visited.map_err(|error| format!("{host}: {error}")));
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { seen, _tasks: tasks }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

fn count(seen: &Mutex<Seen>, visited: Result<u64, String>) {
    let mut seen = seen.lock().unwrap();
    match visited {
        Ok(detours) => {
            seen.served += 1;
            seen.delayed += u64::from(detours > 0);
        }
        Err(error) => {
            seen.failed += 1;
            if seen.failures.len() < SHOWN {
                seen.failures.push(error);
            }
        }
    }
}

/// One visit, at the pod that holds the instance's tunnel; and how often it had to wait or was sent on. Proxies do not hand
/// visitors on to each other yet, so a visitor is sent where a peer would have sent it: the newest tunnel counts, asked anew
/// each time; who waits at a proxy whose tunnel has just moved goes after it; and while nobody has it, it waits as long as
/// proxies let visitors wait.
pub(super) async fn visit(pods: &Pods, instance: &str, host: &str) -> Result<(String, u64), TestError> {
    let began = Instant::now();
    let mut detours = 0;
    while began.elapsed() < PARKED {
        let Some(place) = holder(pods, instance).await else {
            detours += 1;
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        };
        let mut visitor = tokio::select! {
            visitor = Visitor::ask(SocketAddr::new(place, PUBLIC_PORT), host) => visitor?,
            () = moved(pods, instance, place) => {
                detours += 1;
                continue;
            }
        };
        return Ok((visitor.get(host, "/").await?, detours));
    }
    Err("no proxy holds a tunnel".into())
}

/// Returns when the newest tunnel is elsewhere, and has been for a while: what is under way has time to come through.
async fn moved(pods: &Pods, instance: &str, place: IpAddr) {
    let mut since = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if holder(pods, instance).await.is_none_or(|found| found == place) {
            since = None;
        } else if since.get_or_insert_with(Instant::now).elapsed() > UNDER_WAY {
            return;
        }
    }
}

/// The pod with the newest tunnel of an instance.
pub(super) async fn holder(pods: &Pods, instance: &str) -> Option<IpAddr> {
    let mut newest: Option<(f64, IpAddr)> = None;
    for pod in pods().into_iter().filter(|pod| pod.process.is_some()) {
        let tunnels = get(SocketAddr::new(pod.address, ADMIN_PORT), "/tunnels?limit=1000").await;
        let Ok((200, text)) = tunnels else { continue };
        let tunnels: Value = serde_json::from_str(&text).unwrap_or_default();
        for tunnel in tunnels["tunnels"].as_array().into_iter().flatten() {
            let since = tunnel["since"].as_f64().unwrap_or_default();
            if tunnel["instance"] == instance && newest.is_none_or(|(other, _)| since > other) {
                newest = Some((since, pod.address));
            }
        }
    }
    newest.map(|(_, address)| address)
}
