//! Many instances: how long a cold start takes until every proxy has all of them, what that costs, and whether it is quiet
//! afterwards.
//!
//! `SCALE=100000` makes it as many; fewer are made otherwise, since figures are for who asks for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::Method;
use latchkey_cluster_tests::{ControlPlane, Suite, TestError, TestNamespace};
use libtest_mimic::Trial;
use resources::API_VERSION;
use serde_json::{Value, json};

use crate::support::{Installation, eventually, get};

/// Says how many instances are made.
const SCALE: &str = "SCALE";
/// So many without it.
const FEW: u32 = 1_000;
/// How long nobody may write anything, with few and with as many as were asked for.
const QUIET: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// How long many things may take on a slow machine.
const PATIENCE: Duration = Duration::from_mins(15);
/// Objects made at once.
const MAKERS: usize = 16;
const PROXIES: usize = 3;
/// What changes something at the API server, as its metrics call it.
const WRITES: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![suite.test("scale::a_cold_start_with_many_instances", cold_start)]
}

async fn cold_start(_: Suite) -> Result<(), TestError> {
    let asked = std::env::var(SCALE).ok().map(|count| count.parse::<u32>()).transpose()?;
    let (count, quiet) = asked.map_or((FEW, QUIET.0), |count| (count, QUIET.1));
    // Nobody else may write to it.
    let control_plane = ControlPlane::start().await?;
    control_plane.install_definitions().await?;
    control_plane
        .in_namespace("scale", async |namespace| {
            let began = Instant::now();
            make(namespace, count).await?;
            print(&format!("{count} instances made in {:.1?}", began.elapsed()));

            // Once everybody is told what became of them, everything is as it is in the middle of a year.
            let mut here = Installation::begin(namespace).await?;
            // An API server that has so much to do may answer late.
            here.lease = 15;
            here.more_arguments = vec!["--status-writes=5000".to_owned()];
            let began = Instant::now();
            start(&mut here).await?;
            let took = all_have(&here, count, began).await?;
            print(&format!("first start, of objects as they were applied: {took:.2?} until {PROXIES} proxies have {count} routes"));
            told(&here).await?;
            print(&format!("every status told {:.1?} after the start", began.elapsed()));

            let operator = here.operators.get_mut(&0).ok_or("no operator")?;
            operator.process.signal("TERM")?;
            eventually("the operator ends", async || match operator.process.ended()? {
                Some(_) => Ok(()),
                None => Err("it runs".into()),
            })
            .await?;
            here.proxies.clear();
            here.more_arguments.clear();
            here.forget_tables()?;

            // Proxies first: what one holds without a table is known then.
            for which in 0..PROXIES {
                here.start_proxy(which).await?;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let empty = resident(&here, "VmRSS")?;
            let began = Instant::now();
            here.start_operator(0)?;
            let took = all_have(&here, count, began).await?;
            let worked = cpu(here.operators[&0].process.id())?;
            print(&format!("cold start, with everybody's status: {took:.2?} until {PROXIES} proxies have {count} routes; the operator's CPU: {worked:.2?}"));
            let before = writes(&control_plane).await?;
            told(&here).await?;
            let full = resident(&here, "VmRSS")?;
            for (which, (full, empty)) in full.iter().zip(&empty).enumerate() {
                print(&format!("proxy {which}: {} KiB, {} KiB of it since it has the table", full, full - empty));
            }
            let status = here.operators[&0].process.id();
            print(&format!("operator: {} KiB, at most {} KiB", memory(status, "VmRSS")?, memory(status, "VmHWM")?));
            let busy = cpu(here.operators[&0].process.id())?;
            tokio::time::sleep(quiet).await;
            let idle = cpu(here.operators[&0].process.id())?.saturating_sub(busy);
            print(&format!("operator: {} KiB after {quiet:?} more, {idle:.2?} of CPU", memory(status, "VmRSS")?));
            let mut written = writes(&control_plane).await?;
            written.retain(|what, count| before.get(what) != Some(count));
            assert!(written.is_empty(), "somebody wrote: {written:?}, was {before:?}");
            Ok(())
        })
        .await
}

/// Makes instances as a vendor has them.
async fn make(namespace: &TestNamespace<'_>, count: u32) -> Result<(), TestError> {
    let path = format!("/apis/{API_VERSION}/namespaces/{}/remoteinstances", namespace.name());
    let numbers: Vec<u32> = (0..count).collect();
    let making = numbers.chunks(numbers.len().div_ceil(MAKERS).max(1)).map(async |numbers| {
        for number in numbers {
            let object = instance(namespace.name(), *number);
            let answer = namespace.control_plane().exchange(Method::POST, &path, &object).await?;
            if !answer.is_success() {
                return Err(answer.message().to_owned().into());
            }
        }
        Ok::<(), TestError>(())
    });
    futures_util::future::try_join_all(making).await?;
    Ok(())
}

fn instance(installation: &str, number: u32) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "RemoteInstance",
        "metadata": {
            "name": format!("house-{number:06}"),
            "labels": {"app.kubernetes.io/managed-by": "Helm", "vendor.example/customer": format!("{number:08}")},
            "annotations": {"latchkey.dev/agent-keys": format!("{:064x}", number + 1)},
        },
        "spec": {
            "installation": installation,
            "enabled": true,
            "product": "home-assistant",
            "version": format!("2026.11.{}", number % 4),
            "access": {"maxConnections": 64, "newConnectionsPerMinutePerClient": 120},
        },
    })
}

async fn start(here: &mut Installation<'_, '_>) -> Result<(), TestError> {
    here.start_operator(0)?;
    for which in 0..PROXIES {
        here.start_proxy(which).await?;
    }
    Ok(())
}

/// Waits until every proxy has so many routes; says how long that took since it began.
async fn all_have(here: &Installation<'_, '_>, count: u32, began: Instant) -> Result<Duration, TestError> {
    loop {
        let mut have = Vec::new();
        for proxy in here.proxies.values() {
            have.push(figure(proxy.admin, "latchkey_proxy_route_table_routes").await.unwrap_or_default());
        }
        if have.iter().all(|have| (have - f64::from(count)).abs() < 0.5) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("proxies have {have:?} of {count}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until every status is told: proxies have the routes, and nothing waits to be written.
async fn told(here: &Installation<'_, '_>) -> Result<(), TestError> {
    let admin = here.operators[&0].admin;
    let began = Instant::now();
    let mut calm = 0;
    while calm < 5 {
        if began.elapsed() > PATIENCE {
            return Err("statuses are not all told".into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let waiting = figure(admin, "latchkey_operator_status_outbox").await?
            + figure(admin, "latchkey_operator_status_writes_in_flight").await?;
        calm = if waiting == 0.0 { calm + 1 } else { 0 };
    }
    Ok(())
}

async fn figure(admin: std::net::SocketAddr, name: &str) -> Result<f64, TestError> {
    let (_, metrics) = get(admin, "/metrics").await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.ok_or_else(|| format!("no {name} among the metrics"))?.parse()?)
}

/// What was written to the API server until now, leases aside, by what it was.
async fn writes(control_plane: &ControlPlane) -> Result<BTreeMap<String, String>, TestError> {
    // A connection may have been closed since it was used last.
    let metrics = eventually("the API server's metrics", async || {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Ok(control_plane.client().request_text(request).await?)
    })
    .await?;
    let mut writes = BTreeMap::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
        let (labels, count) = line.split_once("} ").ok_or("metrics without figures")?;
        let label = |name: &str| {
            let start = labels.find(&format!("{name}=\""))? + name.len() + 2;
            labels.get(start..)?.split('"').next()
        };
        let writes_it = label("verb").is_some_and(|verb| WRITES.contains(&verb));
        if writes_it && label("resource") != Some("leases") {
            writes.insert(labels.to_owned(), count.to_owned());
        }
    }
    Ok(writes)
}

fn resident(here: &Installation<'_, '_>, what: &str) -> Result<Vec<u64>, TestError> {
    here.proxies.values().map(|proxy| memory(proxy.process.id(), what)).collect()
}

/// Memory of a process, in KiB.
fn memory(process: u32, what: &str) -> Result<u64, TestError> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    Ok(line.ok_or("no such line")?.trim().trim_end_matches(" kB").parse()?)
}

/// What a process has worked, all threads together.
fn cpu(process: u32) -> Result<Duration, TestError> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit_once(") ").ok_or("no name")?.1;
    let ticks: u64 =
        after_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

#[expect(clippy::print_stderr, reason = "figures for whoever runs it")]
fn print(text: &str) {
    eprintln!("scale: {text}");
}
