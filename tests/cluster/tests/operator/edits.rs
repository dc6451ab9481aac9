//! How long an edit takes from the API server's answer to the last of three proxies.

use std::time::{Duration, Instant};

use latchkey_cluster_tests::{Suite, TestError};
use libtest_mimic::Trial;
use serde_json::json;

use crate::support::{Installation, PATIENCE};

/// Edits, one after another.
const EDITS: u32 = 200;
/// Nobody should notice an edit under way; a test machine is shared, so this is generous. The figure itself is printed.
const MOST: Duration = Duration::from_secs(2);

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![suite.test("edits::reach_every_proxy_soon", soon)]
}

async fn soon(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("edits", async |namespace| {
            let here = Installation::with(namespace, 1, 3).await?;
            let lake = |connections: u32| {
                json!({
                    "kind": "RemoteInstance",
                    "metadata": {"name": "lake"},
                    "spec": {"enabled": true, "access": {"maxConnections": connections}},
                })
            };
            here.apply(&lake(1)).await?;
            here.condition("lake", "Programmed", "True").await?;
            let mut took = Vec::new();
            for edit in 0..EDITS {
                let before = revisions(&here).await?;
                here.apply(&lake(2 + edit)).await?;
                let began = Instant::now();
                loop {
                    let now = revisions(&here).await?;
                    if now.iter().zip(&before).all(|(now, before)| now > before) {
                        break;
                    }
                    if began.elapsed() > PATIENCE {
                        return Err(format!("edit {edit}: proxies are at {now:?}, were at {before:?}").into());
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                took.push(began.elapsed());
            }
            took.sort();
            let percentile = |percent: usize| took[took.len() * percent / 100 - 1];
            let (p50, p99) = (percentile(50), percentile(99));
            print(&format!("edits::reach_every_proxy_soon: p50 {p50:.1?}, p99 {p99:.1?} of {EDITS}"));
            assert!(p99 < MOST, "p99 {p99:?}");
            Ok(())
        })
        .await
}

#[expect(clippy::print_stderr, reason = "a figure for whoever runs it")]
fn print(text: &str) {
    eprintln!("{text}");
}

/// The revision that each proxy has in force.
async fn revisions(here: &Installation<'_, '_>) -> Result<Vec<u64>, TestError> {
    let mut revisions = Vec::new();
    for proxy in here.proxies.keys() {
        revisions.push(here.revision(*proxy).await?);
    }
    Ok(revisions)
}
