//! A proxy is killed.

use std::time::{Duration, Instant};

use latchkey_cluster_tests::{Suite, TestError};
use serde_json::{Value, json};

use super::{Guests, begin, host, instance, seen, serve, tell};
use crate::front::Front;
use crate::support::{Installation, eventually, within};

/// How long the status of a tunnel that is gone may take: an operator waits for the proxy to come back, and then tells no
/// change that lasts less than a minute.
const TOLD_WITHIN: Duration = Duration::from_mins(2);
/// A tunnel that held so long is opened again at once.
const HELD: Duration = Duration::from_secs(11);

pub(super) async fn killed_alone(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("proxy-killed", async |namespace| {
            let mut here = begin(namespace, 1).await?;
            here.operators.get_mut(&0).ok_or("no operator")?.process.kill()?;
            // A table is kept once a second.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let began = Instant::now();
            here.proxies.get_mut(&0).ok_or("no proxy")?.process.kill()?;
            here.start_proxy(0).await?;
            // It serves by the table it kept; the agent comes back by itself.
            eventually("the page is back", async || here.page(0, &host("lake")).await).await?;
            tell("a_proxy_is_killed_while_there_is_no_operator", began.elapsed(), "its tunnels went with it");
            Ok(())
        })
        .await
}

pub(super) async fn killed_beside_another(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("proxy-killed", async |namespace| {
            let front = Front::open().await?;
            let mut here = Installation::begin(namespace).await?;
            here.write_settings(&json!({"tunnelAddress": front.here.to_string()})).await?;
            here.start(1, 2).await?;
            let at = |here: &Installation<'_, '_>, proxy: usize| {
                let public = here.proxies[&proxy].public;
                front.lead(public, public);
            };
            for (name, proxy) in [("lake", 0), ("hill", 1)] {
                at(&here, proxy);
                serve(&mut here, name, proxy).await?;
                here.condition(name, "Connected", "True").await?;
            }
            let guests = Guests::at(&here, 1, &host("hill")).await?;
            tokio::time::sleep(HELD).await;

            // The agent finds the other proxy, as it would through a Service.
            let began = Instant::now();
            here.proxies.get_mut(&0).ok_or("no proxy")?.process.kill()?;
            at(&here, 1);
            eventually("the page is back", async || here.page(1, &host("lake")).await).await?;
            tell("a_proxy_is_killed_beside_another", began.elapsed(), &format!("of the other's {}", seen(&guests)));
            guests.noticed_nothing()?;

            // Edits are told without the one that is gone.
            here.apply(&instance("hill", 100)).await?;
            here.condition("hill", "Programmed", "True").await?;
            let lake = here.instance("lake").await?;
            assert_eq!(lake["status"]["tunnel"]["connected"], true, "a change of a moment is not told");

            // With no way to a proxy, the status says so in the end.
            let began = Instant::now();
            here.start_proxy(0).await?;
            here.proxy_ready(0).await?;
            let restarted = began.elapsed();
            at(&here, 0);
            serve(&mut here, "pond", 0).await?;
            here.condition("pond", "Connected", "True").await?;
            front.lead_nowhere();
            let began = Instant::now();
            here.proxies.get_mut(&0).ok_or("no proxy")?.process.kill()?;
            let told = within(TOLD_WITHIN, "pond is Connected=False", async || {
                let pond = here.instance("pond").await?;
                let conditions = pond["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let connected = conditions.into_iter().find(|each| each["type"] == "Connected");
                match connected {
                    Some(told) if told["status"] == "False" => Ok(pond),
                    other => Err(format!("{other:?}").into()),
                }
            })
            .await?;
            let (cleared, began) = (began.elapsed(), Instant::now());
            assert_eq!(told["status"]["tunnel"]["connected"], Value::Bool(false));
            for name in ["lake", "hill"] {
                assert_eq!(here.instance(name).await?["status"]["tunnel"]["connected"], true, "{name}");
            }
            at(&here, 1);
            within(TOLD_WITHIN, "pond is back", async || here.page(1, &host("pond")).await).await?;
            let more = format!(
                "a proxy was ready {restarted:.1?} after its start; Connected=False {cleared:.1?} after the kill; {}",
                seen(&guests)
            );
            tell("a_proxy_is_killed_and_no_other_can_be_reached", began.elapsed(), &more);
            guests.noticed_nothing()
        })
        .await
}
