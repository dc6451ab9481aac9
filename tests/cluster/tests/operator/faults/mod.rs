//! What goes wrong, and what visitors see of it: nothing, where a tunnel was up. Each test prints how long it took until an
//! edit arrived again, and what visitors saw.

mod api_server;
mod clocks;
mod cut_update;
mod leaders;
mod poison;
mod proxies;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use latchkey_cluster_tests::{Suite, TestError, TestNamespace};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{DOMAIN, Installation, PATIENCE, Visitor, eventually};

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("faults::the_leader_is_killed", leaders::killed),
        suite.test("faults::a_deposed_leader_comes_back", leaders::deposed),
        suite.test("faults::the_api_server_is_away_for_a_minute", api_server::away),
        suite.test("faults::etcd_and_the_api_server_are_killed", api_server::killed),
        suite.test("faults::poisoned_objects", poison::poisoned),
        suite.test("faults::an_update_is_cut_in_the_middle", cut_update::cut),
        suite.test("faults::the_clocks_of_proxies_are_off", clocks::off),
        suite.test("faults::a_proxy_is_killed_while_there_is_no_operator", proxies::killed_alone),
        suite.test("faults::a_proxy_is_killed_beside_another", proxies::killed_beside_another),
    ]
}

/// Visitors that never stop: one stays, others come and go. They count what failed.
struct Guests {
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    served: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl Counts {
    fn count(&self, page: Result<String, TestError>) -> bool {
        let Err(error) = page else {
            self.served.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.first_failure.lock().unwrap().get_or_insert_with(|| error.to_string());
        false
    }
}

impl Guests {
    /// Visitors of a host at a proxy.
    async fn at(here: &Installation<'_, '_>, proxy: usize, host: &str) -> Result<Self, TestError> {
        let proxy = here.proxies[&proxy].public;
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        let mut stays = Visitor::ask(proxy, host).await?;
        let (counting, name) = (Arc::clone(&counts), host.to_owned());
        tasks.spawn(async move {
            while counting.count(stays.get(&name, "/").await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let (counting, name) = (Arc::clone(&counts), host.to_owned());
        tasks.spawn(async move {
            loop {
                counting.count(Visitor::page(proxy, &name).await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Ok(Self { counts, _tasks: tasks })
    }

    /// How many pages they got until now.
    fn served(&self) -> u64 {
        self.counts.served.load(Ordering::Relaxed)
    }

    /// How many they did not get.
    fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }

    fn noticed_nothing(&self) -> Result<(), TestError> {
        let first = self.counts.first_failure.lock().unwrap().clone();
        match first {
            None => Ok(()),
            Some(first) => Err(format!("{} of their pages failed, the first: {first}", self.failed()).into()),
        }
    }
}

fn instance(name: &str, connections: u32) -> Value {
    json!({
        "kind": "RemoteInstance",
        "metadata": {"name": name},
        "spec": {
            "enabled": true,
            "hostname": format!("{name}-house"),
            "product": "fault-device",
            "access": {"maxConnections": connections, "newConnectionsPerMinutePerClient": 100_000},
        },
    })
}

fn host(name: &str) -> String {
    format!("{name}-house.{DOMAIN}")
}

/// Operators and a proxy, an agent, and a page that is served.
async fn begin<'a, 'b>(
    namespace: &'a TestNamespace<'b>,
    operators: usize,
) -> Result<Installation<'a, 'b>, TestError> {
    let mut here = Installation::with(namespace, operators, 1).await?;
    serve(&mut here, "lake", 0).await?;
    Ok(here)
}

/// An instance whose page is served by a proxy.
async fn serve(here: &mut Installation<'_, '_>, name: &str, proxy: usize) -> Result<(), TestError> {
    here.apply(&instance(name, 512)).await?;
    here.condition(name, "Programmed", "True").await?;
    here.start_agent(name, "2026.11.1").await?;
    eventually("the page", async || here.page(proxy, &host(name)).await).await?;
    Ok(())
}

/// An edit arrives at every proxy and is told; says how long that took.
async fn an_edit_arrives(here: &Installation<'_, '_>, connections: u32) -> Result<Duration, TestError> {
    let began = Instant::now();
    here.apply(&instance("lake", connections)).await?;
    here.condition("lake", "Programmed", "True").await?;
    Ok(began.elapsed())
}

/// The same after a fault, from now on: nothing answers at first, and an operator that has ended is started again, as a
/// kubelet does. Says how often that was.
async fn recovers(here: &mut Installation<'_, '_>, connections: u32) -> Result<u32, TestError> {
    let (began, mut restarts) = (Instant::now(), 0);
    let arrived = |object: &Value| {
        let told = object.pointer("/status/conditions").and_then(Value::as_array);
        let programmed = told.into_iter().flatten().find(|each| each["type"] == "Programmed");
        object["spec"]["access"]["maxConnections"] == connections
            && programmed.is_some_and(|told| {
                told["status"] == "True" && told["observedGeneration"] == object["metadata"]["generation"]
            })
    };
    let mut applied = false;
    loop {
        restarts += u32::from(here.restart_if_ended(0)?);
        applied = applied || here.apply(&instance("lake", connections)).await.is_ok();
        let seen = here.instance("lake").await;
        if applied && seen.as_ref().is_ok_and(arrived) {
            return Ok(restarts);
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("it did not recover (applied: {applied}): {seen:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[expect(clippy::print_stderr, reason = "figures for whoever runs it")]
fn tell(what: &str, recovered: Duration, more: &str) {
    eprintln!("faults::{what}: recovered after {recovered:.1?}; {more}");
}

fn seen(guests: &Guests) -> String {
    format!("visitors: {} served, {} failed", guests.served(), guests.failed())
}
