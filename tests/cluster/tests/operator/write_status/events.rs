//! Events beside objects, as people see them.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event as KubeEvent;
use kube::Api;
use kube::api::ListParams;
use latchkey_cluster_tests::{Suite, TestError};
use latchkey_operator::write_status::{Blocks, StatusWriter};
use serde_json::json;
use tokio::time::Instant;

use super::{Installation, SOON, create_block, settings};
use crate::observe::{create, until};

pub(super) async fn events(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            let created = create(namespace, "lake", json!({"enabled": true, "version": "2020.12.1"})).await?;
            let block = create_block(namespace, "block", &["<2021.1"]).await?;
            // Only the planner sees that this is no version.
            let odd = create_block(namespace, "odd", &["<2021..1"]).await?;
            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            let client = control_plane.client();
            until(&installation.observer, "the blocks", |objects| {
                objects.blocks.contains_key(&block) && objects.blocks.contains_key(&odd)
            })
            .await?;
            let writer = StatusWriter::start(&client, settings());
            let objects = installation.objects();
            let plan = installation.plan(&objects);
            let published = plan.published(plan.revision).unwrap();
            assert!(plan.events.iter().any(|event| event.reason == "Blocked"), "{:?}", plan.events);
            // Nothing is told while proxies come first.
            writer.hold(Instant::now() + SOON);
            writer.tell(published, &objects, Blocks::Ours);
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(writer.stats().events_written, 0);
            // A leader offers a plan once; three times here, as when an instance flaps.
            writer.offer(published, &objects, Blocks::Ours);
            for _ in 1..3 {
                writer.tell(published, &objects, Blocks::Ours);
                writer.offer(published, &objects, Blocks::Ours);
            }
            let expected = u64::try_from(plan.events.len() * 3)?;
            let waiting = Instant::now() + SOON;
            while writer.stats().events_written < expected {
                assert!(Instant::now() < waiting, "not written: {:?}", writer.stats());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Blocks have no namespace, so what is told of them is in the default one.
            let api: Api<KubeEvent> = Api::namespaced(client.clone(), "default");
            let told = api.list(&ListParams::default()).await?.items;
            let about = |event: &&KubeEvent| {
                event.regarding.as_ref().is_some_and(|object| object.name.as_ref() == Some(&odd))
            };
            assert_eq!(told.iter().filter(about).count(), 1);
            let api: Api<KubeEvent> = Api::namespaced(client, namespace.name());
            let told = api.list(&ListParams::default()).await?.items;
            let blocked: Vec<&KubeEvent> =
                told.iter().filter(|event| event.reason.as_deref() == Some("Blocked")).collect();
            let [blocked] = blocked.as_slice() else { panic!("{} events instead of one", blocked.len()) };
            assert_eq!(blocked.series.as_ref().map(|series| series.count), Some(3));
            assert_eq!(blocked.type_.as_deref(), Some("Warning"));
            assert_eq!(blocked.reporting_controller.as_deref(), Some("latchkey.dev/operator"));
            assert_eq!(blocked.reporting_instance.as_deref(), Some("operator-0"));
            let regarding = blocked.regarding.as_ref().unwrap();
            assert_eq!(regarding.uid.as_deref(), created["metadata"]["uid"].as_str());
            // As people look for it.
            let output = control_plane.kubectl(&["describe", "ri", "lake", "-n", namespace.name()]).await?;
            assert!(
                output.stdout.contains("Warning") && output.stdout.contains("Blocked"),
                "{}",
                output.stdout
            );
            Ok(())
        })
        .await
}
