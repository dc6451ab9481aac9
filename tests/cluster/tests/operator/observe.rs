//! What the operator sees of a real API server's objects, and what it does not take for news.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use kube::Client;
use latchkey_cluster_tests::{ControlPlane, Suite, TestError, TestNamespace};
use latchkey_operator::observe::{Objects, Observer, Scope};
use libtest_mimic::Trial;
use resources::{API_VERSION, Observed};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::line::Line;

/// What a busy machine may need for anything.
const SOON: Duration = Duration::from_secs(20);

/// An installation's field manager.
pub(crate) const MANAGER: &str = "latchkey-operator-status/tests";

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("observe::objects_come_change_and_go", changes),
        suite.test("observe::a_status_is_told_but_no_reason_to_plan", statuses),
        suite.test("observe::what_happened_while_the_api_server_was_away_is_seen_afterwards", outage),
        suite.test("observe::a_namespace_alone", one_namespace),
    ]
}

/// Sends what must succeed.
pub(crate) async fn send(
    control_plane: &ControlPlane,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<Value, TestError> {
    let answer = control_plane.exchange(method, path, body).await?;
    assert!(answer.is_success(), "{path}: {}", answer.message());
    Ok(answer.body)
}

/// Where a namespace's instances are.
pub(crate) fn folder(namespace: &str) -> String {
    format!("/apis/{API_VERSION}/namespaces/{namespace}/remoteinstances")
}

pub(crate) async fn create(
    namespace: &TestNamespace<'_>,
    name: &str,
    spec: Value,
) -> Result<Value, TestError> {
    let object = json!({
        "apiVersion": API_VERSION, "kind": "RemoteInstance", "metadata": {"name": name}, "spec": spec,
    });
    send(namespace.control_plane(), Method::POST, &folder(namespace.name()), &object).await
}

/// Waits until the objects are as wanted.
pub(crate) async fn until(
    observer: &Observer,
    what: &str,
    wanted: impl Fn(&Objects) -> bool,
) -> Result<Objects, TestError> {
    let mut changed = observer.subscribe_statuses();
    let waiting = async {
        loop {
            let objects = observer.objects();
            if wanted(&objects) {
                return objects;
            }
            let _ = changed.changed().await;
        }
    };
    timeout(SOON, waiting).await.map_err(|_| format!("not seen: {what}").into())
}

async fn observe(client: &Client, scope: &Scope) -> Result<Observer, TestError> {
    let observer = Observer::start(client, scope, MANAGER);
    timeout(SOON, observer.synced()).await?;
    Ok(observer)
}

async fn changes(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("observe", async |namespace| {
            let id = |name: &str| format!("{}/{name}", namespace.name());
            create(namespace, "early", json!({})).await?;
            let block = namespace.cluster_wide("block");
            let object = json!({
                "apiVersion": API_VERSION, "kind": "VersionBlock", "metadata": {"name": block},
                "spec": {"versions": ["<2021.1"], "reason": "Old"},
            });
            send(control_plane, Method::POST, &format!("/apis/{API_VERSION}/versionblocks"), &object).await?;

            let observer = observe(&control_plane.client(), &Scope::All).await?;
            // With the first list, or right behind it: that comes from the API server's cache.
            until(&observer, "what was there", |objects| {
                objects.instances.contains_key(&*id("early")) && objects.blocks.contains_key(&block)
            })
            .await?;

            create(namespace, "late", json!({"enabled": true})).await?;
            let objects =
                until(&observer, "a new one", |objects| objects.instances.contains_key(&*id("late"))).await?;
            let Observed::Readable(object) = &*objects.instances[&*id("late")] else { panic!("unreadable") };
            assert!(object.spec.enabled && object.about.uid.is_some());

            let patch = json!({"spec": {"enabled": false}});
            send(control_plane, Method::PATCH, &format!("{}/late", folder(namespace.name())), &patch).await?;
            let before = objects;
            let objects = until(&observer, "a change", |objects| {
                !Arc::ptr_eq(&objects.instances[&*id("late")], &before.instances[&*id("late")])
            })
            .await?;
            assert_eq!(objects.instances[&*id("late")].about().generation, Some(2));
            assert!(Arc::ptr_eq(&objects.instances[&*id("early")], &before.instances[&*id("early")]));

            let early = format!("{}/early", folder(namespace.name()));
            send(control_plane, Method::DELETE, &early, &json!({})).await?;
            let objects =
                until(&observer, "an end", |objects| !objects.instances.contains_key(&*id("early"))).await?;
            assert!(!objects.instances_told.contains_key(&*id("early")));
            Ok(())
        })
        .await
}

async fn statuses(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("observe", async |namespace| {
            let id = format!("{}/lake", namespace.name());
            create(namespace, "lake", json!({})).await?;
            // Alone in a namespace, so that no other test's objects are counted.
            let scope = Scope::Namespaces([namespace.name().to_owned()].into());
            let observer = observe(&control_plane.client(), &scope).await?;
            let before =
                until(&observer, "the object", |objects| objects.instances.contains_key(&*id)).await?;
            assert_eq!(before.instances_told[&*id].digest, None);
            let place = format!("{}/lake/status", folder(namespace.name()));
            let patch = json!({"status": {"url": "https://lake.example.com"}});
            send(control_plane, Method::PATCH, &place, &patch).await?;
            let after =
                until(&observer, "a status", |objects| objects.instances_told[&*id].digest.is_some()).await?;
            assert!(after.instances.ptr_eq(&before.instances), "not even the map is another");
            assert!(after.instances_told[&*id].revision > before.instances_told[&*id].revision);
            // Whole ones are there for the first plan, and only for that.
            let taken = observer.take_statuses();
            assert_eq!(taken.instances[&*id].url.as_deref(), Some("https://lake.example.com"));
            assert!(observer.take_statuses().instances.is_empty());
            Ok(())
        })
        .await
}

async fn outage(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("observe", async |namespace| {
            let id = |name: &str| format!("{}/{name}", namespace.name());
            for name in ["stays", "goes"] {
                create(namespace, name, json!({})).await?;
            }
            let line = Line::open(control_plane).await?;
            let observer = observe(&line.client, &Scope::All).await?;
            let all = |objects: &Objects| {
                ["stays", "goes"].iter().all(|name| objects.instances.contains_key(&*id(name)))
            };
            let before = until(&observer, "what was there", all).await?;
            line.cut().await;
            create(namespace, "comes", json!({})).await?;
            send(control_plane, Method::DELETE, &format!("{}/goes", folder(namespace.name())), &json!({}))
                .await?;
            let waiting = Instant::now() + SOON;
            while observer.stats().errors < 2 {
                assert!(Instant::now() < waiting, "no error is counted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // What was known is known still.
            assert!(observer.objects().instances.contains_key(&*id("goes")));
            line.mend().await?;
            let after = until(&observer, "what happened", |objects| {
                objects.instances.contains_key(&*id("comes")) && !objects.instances.contains_key(&*id("goes"))
            })
            .await?;
            assert!(Arc::ptr_eq(&after.instances[&*id("stays")], &before.instances[&*id("stays")]));
            Ok(())
        })
        .await
}

async fn one_namespace(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("observe", async |one| {
            control_plane
                .in_namespace("observe", async |other| {
                    create(one, "lake", json!({})).await?;
                    create(other, "cabin", json!({})).await?;
                    let scope = Scope::Namespaces([one.name().to_owned()].into());
                    let observer = observe(&control_plane.client(), &scope).await?;
                    let objects =
                        until(&observer, "the object", |objects| !objects.instances.is_empty()).await?;
                    let seen: Vec<String> = objects.instances.keys().map(ToString::to_string).collect();
                    assert_eq!(seen, [format!("{}/lake", one.name())]);
                    Ok(())
                })
                .await
        })
        .await
}
