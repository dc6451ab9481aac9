//! From `kubectl apply` to a page in a browser, and back again, with real operators, proxies and agents.

use http::Method;
use latchkey_cluster_tests::{Suite, TestError};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{DOMAIN, Installation, Visitor, eventually};

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("journey::apply_join_visit_disable_delete", whole),
        suite.test("journey::a_block_cuts_and_an_acceptance_lets_back_in", block),
        suite.test("journey::statuses_follow_the_settings", settings),
    ]
}

fn lake() -> Value {
    json!({
        "kind": "RemoteInstance",
        "metadata": {"name": "lake"},
        "spec": {"enabled": true, "hostname": "lake-house", "product": "journey-device"},
    })
}

async fn whole(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("journey", async |namespace| {
            let mut here = Installation::with(namespace, 1, 3).await?;
            here.apply(&lake()).await?;
            let object = here.condition("lake", "Ready", "True").await?;
            assert_eq!(object["status"]["url"], format!("https://lake-house.{DOMAIN}"));
            here.start_agent("lake", "2026.11.1").await?;
            here.condition("lake", "Connected", "True").await?;
            let host = format!("lake-house.{DOMAIN}");
            // The tunnel is at the proxy the bundle names.
            assert_eq!(here.page(0, &host).await?, "the page of lake");
            let mut guest = Visitor::ask(here.proxies[&0].public, &host).await?;
            assert_eq!(guest.get(&host, "/").await?, "the page of lake");

            // kubectl's own view of it.
            let waited = control_plane
                .kubectl(&[
                    "wait",
                    "ri/lake",
                    "-n",
                    namespace.name(),
                    "--for=condition=Ready",
                    "--timeout=30s",
                ])
                .await?;
            assert!(waited.stdout.contains("condition met"), "{waited:?}");

            // Off: the visitor's connection ends, and nobody new gets in.
            let mut off = lake();
            off["spec"]["enabled"] = json!(false);
            here.apply(&off).await?;
            eventually("the guest is cut", async || match guest.get(&host, "/").await {
                Err(_) => Ok(()),
                Ok(_) => Err("still served".into()),
            })
            .await?;
            assert!(here.page(0, &host).await.is_err());

            // On again. An agent that was told "disabled" asks every quarter of an hour, and at once when it is started anew.
            here.apply(&lake()).await?;
            here.condition("lake", "Programmed", "True").await?;
            here.agents.remove("lake");
            here.run_agent("lake", "2026.11.1").await?;
            eventually("it is back", async || here.page(0, &host).await).await?;

            let path = here.instance_path("lake");
            control_plane.exchange(Method::DELETE, &path, &json!({})).await?;
            eventually("it is gone", async || match here.page(0, &host).await {
                Err(_) => Ok(()),
                Ok(_) => Err("still served".into()),
            })
            .await
        })
        .await
}

async fn block(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("blocked", async |namespace| {
            let mut here = Installation::with(namespace, 1, 1).await?;
            // A product of its own, since blocks are for the whole cluster.
            let product = format!("device-{}", namespace.name());
            let mut lake = lake();
            lake["spec"]["product"] = json!(product);
            here.apply(&lake).await?;
            here.start_agent("lake", "2021.1.3").await?;
            let host = format!("lake-house.{DOMAIN}");
            eventually("the page", async || here.page(0, &host).await).await?;
            let name = namespace.cluster_wide("old");
            let block = json!({
                "kind": "VersionBlock",
                "metadata": {"name": name},
                "spec": {"product": product, "versions": ["<=2021.1.4"], "reason": "Directory traversal"},
            });
            here.apply(&block).await?;
            here.condition("lake", "VersionAllowed", "False").await?;
            eventually("visitors are refused", async || match here.page(0, &host).await {
                Err(_) => Ok(()),
                Ok(_) => Err("still served".into()),
            })
            .await?;
            lake["spec"]["acceptedBlocks"] = json!([{"name": name, "reason": "isolated", "by": "tests"}]);
            here.apply(&lake).await?;
            here.condition("lake", "Programmed", "True").await?;
            // A blocked agent asks every few minutes, and at once when it runs another version: this one is accepted, too.
            here.report_version("lake", "2021.1.2")?;
            eventually("accepted, it is back", async || here.page(0, &host).await).await?;
            Ok(())
        })
        .await
}

/// Which installation tells of blocks, and which instances it serves, changes while the leader leads.
async fn settings(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("settings", async |namespace| {
            let mut here = Installation::begin(namespace).await?;
            here.start_operator(0)?;
            here.operator_ready(0).await?;
            here.apply(&lake()).await?;
            let name = namespace.cluster_wide("old");
            let block = json!({
                "kind": "VersionBlock",
                "metadata": {"name": name},
                "spec": {"product": namespace.name(), "versions": ["<=2021.1.4"], "reason": "Old"},
            });
            here.apply(&block).await?;
            let block = format!("/apis/{}/versionblocks/{name}", resources::API_VERSION);
            let instance = here.instance_path("lake");
            let is_told = async |what: &str, place: &str, expected: bool| {
                eventually(what, async || {
                    let status =
                        control_plane.exchange(Method::GET, place, &Value::Null).await?.body["status"].take();
                    if status["conditions"].is_array() == expected {
                        Ok(())
                    } else {
                        Err(status.to_string().into())
                    }
                })
                .await
            };
            is_told("the instance's status", &instance, true).await?;
            is_told("no status of the block", &block, false).await?;
            here.write_settings(&json!({"default": true})).await?;
            is_told("the block's status", &block, true).await?;
            // Another one is the default now.
            here.write_settings(&json!({})).await?;
            is_told("no status of the block any more", &block, false).await?;
            here.write_settings(&json!({"namespaces": ["elsewhere"]})).await?;
            is_told("no status of the instance any more", &instance, false).await?;
            here.write_settings(&json!({})).await?;
            is_told("the instance's status again", &instance, true).await
        })
        .await
}
