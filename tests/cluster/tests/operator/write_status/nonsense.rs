//! Objects that make no sense.

use std::time::Duration;

use http::Method;
use latchkey_cluster_tests::{ControlPlane, Suite, TestError};
use latchkey_operator::write_status::StatusWriter;
use resources::{API_VERSION, Observed};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Installation, SOON, get, idle, settings};
use crate::observe::{folder, send, until};

/// An object that was stored under another definition, and breaks the rules of this one.
pub(super) async fn nonsense(_: Suite) -> Result<(), TestError> {
    // A control plane of its own: its definitions change.
    let control_plane = ControlPlane::start().await?;
    control_plane.install_definitions().await?;
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/remoteinstances.latchkey.dev";
    let mut lax = get(&control_plane, definition).await?;
    lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    lax["metadata"]["managedFields"] = json!([]);
    send(&control_plane, Method::PUT, definition, &lax).await?;
    control_plane
        .in_namespace("status", async |namespace| {
            let object = |name: &str, spec: &Value| {
                json!({
                    "apiVersion": API_VERSION, "kind": "RemoteInstance", "metadata": {"name": name}, "spec": spec,
                })
            };
            let poison = [
                ("number", json!({"enabled": true, "version": 2023.1})),
                ("rule", json!({"enabled": true, "hostname": "NOT-A-LABEL"})),
                ("shape", json!({"enabled": true, "access": "everybody"})),
                ("member", json!({"enabled": true, "noSuchMember": 1})),
                ("huge", json!({"enabled": true, "customDomains": vec!["x.example.com"; 20_000]})),
            ];
            for (name, spec) in &poison {
                let path = folder(namespace.name());
                // The definition is served a moment after it was written.
                let waiting = Instant::now() + SOON;
                while !control_plane.exchange(Method::POST, &path, &object(name, spec)).await?.is_success() {
                    assert!(Instant::now() < waiting, "{name} is refused");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            control_plane.install_definitions().await?;
            // The rules are back when such an object is refused.
            let waiting = Instant::now() + SOON;
            let dry = format!("{}?dryRun=All", folder(namespace.name()));
            while control_plane.exchange(Method::POST, &dry, &object("probe", &poison[1].1)).await?.is_success() {
                assert!(Instant::now() < waiting, "the rules did not come back");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }

            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            let objects = installation.objects();
            let unreadable = objects.instances.values().filter(|object| matches!(***object, Observed::Unreadable(_)));
            let unreadable = unreadable.count();
            let writer = StatusWriter::start(&control_plane.client(), settings());
            let plan = installation.turn(&writer);
            idle(&writer).await?;
            assert_eq!(unreadable, 4, "a member that nobody knows is taken out by the API server");
            let stats = writer.stats();
            assert_eq!((stats.written, stats.refused), (5, 0), "{stats:?}");
            for (id, status) in &plan.instances {
                let name = id.as_str().split_once('/').unwrap().1;
                let stored = get(&control_plane, &format!("{}/{name}", folder(namespace.name()))).await?;
                assert_eq!(stored["status"], serde_json::to_value(&**status)?, "{name}");
                let reasons: Vec<&Value> =
                    stored["status"]["conditions"].as_array().unwrap().iter().map(|each| &each["reason"]).collect();
                assert_eq!(reasons.contains(&&json!("InvalidSpec")), name != "member", "{name}: {reasons:?}");
            }
            // Mended, nothing of the complaint stays, although it was written by other means than what follows.
            let mended = format!("{}/number", folder(namespace.name()));
            let version = json!({"spec": {"version": "2023.10"}});
            send(&control_plane, Method::PATCH, &mended, &version).await?;
            until(&installation.observer, "the mended one", |objects| {
                let id = format!("{}/number", namespace.name());
                matches!(*objects.instances[&*id], Observed::Readable(_))
            })
            .await?;
            let plan = installation.turn(&writer);
            idle(&writer).await?;
            let id = format!("{}/number", namespace.name());
            let wanted = serde_json::to_value(&*plan.instances[&*id])?;
            let stalled = |status: &Value| {
                status["conditions"].as_array().unwrap().iter().any(|each| each["type"] == "Stalled")
            };
            let stored = get(&control_plane, &mended).await?;
            assert!(!stalled(&wanted));
            assert_eq!(stored["status"], wanted);
            Ok(())
        })
        .await
}
