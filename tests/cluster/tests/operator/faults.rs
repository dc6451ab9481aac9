//! What goes wrong, and what visitors see of it: nothing, where a tunnel was up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use latchkey_cluster_tests::{Process, Suite, TestError};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::line::Line;
use crate::support::{DOMAIN, Installation, Visitor, eventually};

/// How long the API server is away.
const AWAY: Duration = Duration::from_mins(1);

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("faults::the_leader_is_killed", leader_killed),
        suite.test("faults::a_deposed_leader_comes_back", deposed),
        suite.test("faults::the_api_server_is_away_for_a_minute", api_server_away),
        suite.test("faults::a_proxy_is_killed_while_there_is_no_operator", proxy_killed),
    ]
}

/// Visitors that never stop: one stays, others come and go. They count what failed.
struct Guests {
    served: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Guests {
    async fn of(here: &Installation<'_, '_>, host: &str) -> Result<Self, TestError> {
        let proxy = here.proxies[&0].public;
        let (served, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        let mut stays = Visitor::ask(proxy, host).await?;
        let (counts, name) = ((served.clone(), failed.clone()), host.to_owned());
        let count = |counts: &(Arc<AtomicU64>, Arc<AtomicU64>), good: bool| {
            if good { &counts.0 } else { &counts.1 }.fetch_add(1, Ordering::Relaxed);
        };
        tasks.spawn(async move {
            loop {
                let good = stays.get(&name, "/").await.is_ok();
                count(&counts, good);
                if !good {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let (counts, name) = ((served.clone(), failed.clone()), host.to_owned());
        tasks.spawn(async move {
            loop {
                count(&counts, Visitor::page(proxy, &name).await.is_ok());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Ok(Self { served, failed, _tasks: tasks })
    }

    /// What they saw until now.
    fn saw(&self) -> (u64, u64) {
        (self.served.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

fn lake(connections: u32) -> Value {
    json!({
        "kind": "RemoteInstance",
        "metadata": {"name": "lake"},
        "spec": {
            "enabled": true,
            "hostname": "lake-house",
            "product": "fault-device",
            "access": {"maxConnections": connections, "newConnectionsPerMinutePerClient": 100_000},
        },
    })
}

fn host() -> String {
    format!("lake-house.{DOMAIN}")
}

/// Operators, a proxy, an agent, and a page that is served.
async fn begin(here: &mut Installation<'_, '_>, operators: usize) -> Result<(), TestError> {
    for which in 0..operators {
        here.start_operator(which)?;
        here.operator_ready(which).await?;
    }
    here.start_proxy(0).await?;
    here.proxy_ready(0).await?;
    here.apply(&lake(512)).await?;
    here.condition("lake", "Programmed", "True").await?;
    here.start_agent("lake", "2026.11.1").await?;
    eventually("the page", async || here.page(0, &host()).await).await?;
    Ok(())
}

/// An edit arrives at the proxy and is told; says how long that took.
async fn an_edit_arrives(here: &Installation<'_, '_>, connections: u32) -> Result<Duration, TestError> {
    let began = Instant::now();
    here.apply(&lake(connections)).await?;
    here.condition("lake", "Programmed", "True").await?;
    Ok(began.elapsed())
}

#[expect(clippy::print_stderr, reason = "figures for whoever runs it")]
fn tell(what: &str, recovered: Duration, (served, failed): (u64, u64)) {
    eprintln!("faults::{what}: recovered after {recovered:.1?}; visitors: {served} served, {failed} failed");
}

fn signal(process: &Process, name: &str) -> Result<(), TestError> {
    let status = std::process::Command::new("kill").args([name, &process.id().to_string()]).status()?;
    if status.success() { Ok(()) } else { Err(format!("kill {name}: {status}").into()) }
}

async fn leader_killed(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("killed", async |namespace| {
            let mut here = Installation::begin(namespace).await?;
            begin(&mut here, 2).await?;
            let guests = Guests::of(&here, &host()).await?;
            let began = Instant::now();
            here.operators.get_mut(&0).ok_or("no operator")?.process.kill()?;
            an_edit_arrives(&here, 100).await?;
            tell("the_leader_is_killed", began.elapsed(), guests.saw());
            assert_eq!(guests.saw().1, 0, "visitors notice nothing");
            Ok(())
        })
        .await
}

async fn deposed(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("deposed", async |namespace| {
            let mut here = Installation::begin(namespace).await?;
            begin(&mut here, 2).await?;
            let guests = Guests::of(&here, &host()).await?;
            let began = Instant::now();
            signal(&here.operators[&0].process, "-STOP")?;
            // The other leads, and blocks the instance's visitors from here.
            an_edit_arrives(&here, 100).await?;
            let recovered = began.elapsed();
            let mut off = lake(100);
            off["spec"]["enabled"] = json!(false);
            here.apply(&off).await?;
            here.condition("lake", "Programmed", "True").await?;
            drop(guests);
            signal(&here.operators[&0].process, "-CONT")?;
            // The old one knows only of an instance that is on. It must not bring that back, and ends.
            let old = here.operators.get_mut(&0).ok_or("no operator")?;
            eventually("the deposed leader ends", async || match old.process.ended()? {
                Some(_) => Ok(()),
                None => Err("it goes on".into()),
            })
            .await?;
            for _ in 0..20 {
                assert!(here.page(0, &host()).await.is_err(), "it was let back in");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tell("a_deposed_leader_comes_back", recovered, (0, 0));
            Ok(())
        })
        .await
}

async fn api_server_away(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("away", async |namespace| {
            let line = Line::open(control_plane).await?;
            let mut here = Installation::begin(namespace).await?;
            here.through(&line)?;
            begin(&mut here, 1).await?;
            let guests = Guests::of(&here, &host()).await?;
            line.cut().await;
            tokio::time::sleep(AWAY).await;
            let away = guests.saw();
            line.mend().await?;
            let began = Instant::now();
            // Without its lease an operator ends; who restarts it is a kubelet's business, here ours.
            if here.operators.get_mut(&0).ok_or("no operator")?.process.ended()?.is_some() {
                here.start_operator(0)?;
            }
            an_edit_arrives(&here, 100).await?;
            tell("the_api_server_is_away_for_a_minute", began.elapsed(), guests.saw());
            assert!(away.0 > 100, "visitors were served meanwhile: {away:?}");
            assert_eq!(guests.saw().1, 0, "visitors notice nothing");
            Ok(())
        })
        .await
}

async fn proxy_killed(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("proxy-killed", async |namespace| {
            let mut here = Installation::begin(namespace).await?;
            begin(&mut here, 1).await?;
            here.operators.get_mut(&0).ok_or("no operator")?.process.kill()?;
            // A table is kept once a second.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let began = Instant::now();
            here.proxies.get_mut(&0).ok_or("no proxy")?.process.kill()?;
            here.start_proxy(0).await?;
            // It serves by the table it kept; the agent comes back by itself.
            eventually("the page is back", async || here.page(0, &host()).await).await?;
            tell("a_proxy_is_killed_while_there_is_no_operator", began.elapsed(), (1, 0));
            Ok(())
        })
        .await
}
