//! The clocks of proxies are off by an hour.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use latchkey_cluster_tests::{Suite, TestError};
use serde_json::{Value, json};

use super::{Guests, host, instance, serve, tell};
use crate::front::Front;
use crate::support::Installation;

/// An hour, and a bit more: what bears with exactly an hour does not pass.
const OFF: i64 = 61 * 60;
/// The clocks of the proxies.
const CLOCKS: [i64; 3] = [0, OFF, -OFF];
/// Which proxy gives the session, and which one gets the tunnel.
const PAIRS: [(usize, usize); 9] = [(0, 0), (1, 1), (2, 2), (0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
/// Visitors come and go for so long beside edits.
const LONG: Duration = Duration::from_secs(10);
/// By how much a status may be wrong about when a tunnel came up.
const FRESH: i64 = 60;

pub(super) async fn off(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("clocks", async |namespace| {
            let front = Front::open().await?;
            let mut here = Installation::begin(namespace).await?;
            here.write_settings(&json!({"tunnelAddress": front.here.to_string()})).await?;
            for (which, off) in CLOCKS.into_iter().enumerate() {
                here.set_clock(which, off);
            }
            // Its certificates are as young as can be: a slow clock is before their time.
            here.start(1, CLOCKS.len()).await?;
            let first = unix_now();
            let (mut guests, mut longest) = (Vec::new(), Duration::ZERO);
            for (session, tunnel) in PAIRS {
                let name = format!("from-{session}-to-{tunnel}");
                front.lead(here.proxies[&session].public, here.proxies[&tunnel].public);
                let began = Instant::now();
                serve(&mut here, &name, tunnel).await.map_err(|error| format!("{name}: {error}"))?;
                longest = longest.max(began.elapsed());
                guests.push(Guests::at(&here, tunnel, &host(&name)).await?);
            }
            let (began, mut edits, mut slowest) = (Instant::now(), 0, Duration::ZERO);
            while began.elapsed() < LONG {
                let name = format!("from-{}-to-{}", PAIRS[0].0, PAIRS[0].1);
                edits += 1;
                let edit = Instant::now();
                here.apply(&instance(&name, 1_000 + edits)).await?;
                here.condition(&name, "Programmed", "True").await?;
                slowest = slowest.max(edit.elapsed());
            }
            for (session, tunnel) in PAIRS {
                let name = format!("from-{session}-to-{tunnel}");
                let object = here.condition(&name, "Connected", "True").await?;
                let (since, now) = (since(&object)?, unix_now());
                assert!((first - FRESH..=now + 1).contains(&since), "{name}: {since} is told, it is {now}");
            }
            for which in 0..CLOCKS.len() {
                assert_eq!(
                    here.metric(which, "latchkey_proxy_operator_connected").await?,
                    1,
                    "proxy {which}"
                );
            }
            let (served, failed) = guests
                .iter()
                .fold((0, 0), |(served, failed), each| (served + each.served(), failed + each.failed()));
            let more = format!(
                "from an object to its page {longest:.1?} at most, for every pair of proxies; \
                 {edits} edits, {slowest:.1?} at most; visitors: {served} served, {failed} failed"
            );
            tell("the_clocks_of_proxies_are_off", Duration::ZERO, &more);
            guests.iter().try_for_each(Guests::noticed_nothing)
        })
        .await
}

/// Since when its tunnel is up, as its status says.
fn since(object: &Value) -> Result<i64, TestError> {
    let text = object["status"]["tunnel"]["since"].as_str().ok_or("no time of its tunnel")?;
    Ok(text.parse::<k8s_openapi::jiff::Timestamp>()?.as_second())
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
