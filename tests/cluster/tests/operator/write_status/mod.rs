//! Statuses and events, as a real API server takes them: what is written, what is not, and how often.

mod events;
mod limits;
mod nonsense;
mod taken_back;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use latchkey_cluster_tests::{ControlPlane, Suite, TestError, TestNamespace};
use latchkey_operator::observe::{Objects, Observer, Scope};
use latchkey_operator::write_status::{Blocks, Settings, StatusWriter};
use libtest_mimic::Trial;
use planner::{Facts, Inventory, Plan, Previous, Seed, Timestamp, plan};
use resources::{API_VERSION, InstallationSpec};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::observe::{MANAGER, create, folder, send, until};

/// What a busy machine may need for anything.
const SOON: Duration = Duration::from_secs(20);

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("write_status::what_differs_is_written_and_then_there_is_quiet", quiet),
        suite.test("write_status::what_somebody_else_changed_is_set_right", meddling),
        suite.test("write_status::an_object_that_is_gone_is_not_made_and_a_new_one_gets_its_own", gone),
        suite.test("write_status::an_api_server_that_asks_for_patience_gets_it", limits::patience),
        suite.test("write_status::no_more_a_second_than_allowed_and_none_after_the_end", limits::pace),
        suite.test("write_status::proxies_come_first", limits::hold),
        suite.test("write_status::events_are_told_once_and_then_counted", events::events),
        suite.test("write_status::what_is_served_no_more_is_taken_back", taken_back::taken_back),
        suite.test("write_status::an_object_without_sense_gets_its_status", nonsense::nonsense),
    ]
}

/// An installation of a test's own: its namespace, and the version blocks whose names begin with it.
struct Installation {
    namespace: String,
    observer: Observer,
    previous: Previous,
    now: Timestamp,
}

impl Installation {
    async fn start(client: &Client, namespace: &str) -> Result<Self, TestError> {
        let scope = Scope::Namespaces([namespace.to_owned()].into());
        let observer = Observer::start(client, &scope, MANAGER);
        timeout(SOON, observer.synced()).await?;
        // A first list comes from the API server's cache, which may be a moment behind.
        let path = folder(namespace);
        let request = Request::get(path).body(Vec::new())?;
        let list: Value = client.request(request).await?;
        let newest = list["items"].as_array().into_iter().flatten();
        let newest =
            newest.filter_map(|object| object["metadata"]["resourceVersion"].as_str()?.parse().ok()).max();
        until(&observer, "the newest object", |objects| {
            objects.instances_told.values().map(|told| told.revision).max() >= newest
        })
        .await?;
        let now = Timestamp(1_795_255_200);
        Ok(Self { namespace: namespace.to_owned(), observer, previous: Previous::default(), now })
    }

    /// What there is of this test.
    fn objects(&self) -> Objects {
        let Objects { instances, blocks, instances_told, blocks_told } = self.observer.objects();
        let ours = |name: &String| name.starts_with(&self.namespace);
        let blocks = blocks.into_iter().filter(|(name, _)| ours(name)).collect();
        let blocks_told = blocks_told.into_iter().filter(|(name, _)| ours(name)).collect();
        Objects { instances, blocks, instances_told, blocks_told }
    }

    fn inventory(objects: &Objects) -> Inventory {
        let spec: InstallationSpec = serde_json::from_value(json!({"domain": "ui.example.com"})).unwrap();
        let settings = planner::Settings { name: "default".to_owned(), spec, seed: Seed::new([7; 32]) };
        Inventory {
            settings: Arc::new(settings),
            instances: objects.instances.clone(),
            blocks: objects.blocks.clone(),
            facts: Facts::default(),
        }
    }

    /// Another plan, a minute later.
    fn plan(&mut self, objects: &Objects) -> Plan {
        self.now = self.now.plus_seconds(60);
        let (plan, previous) = plan(&Self::inventory(objects), &self.previous, self.now);
        self.previous = previous;
        plan
    }

    /// What a leader does with what there is now.
    fn turn(&mut self, writer: &StatusWriter) -> Plan {
        let objects = self.objects();
        let plan = self.plan(&objects);
        let published = plan.published(plan.revision).unwrap();
        writer.tell(published, &objects, Blocks::Ours);
        writer.offer(published, &objects, Blocks::Ours);
        plan
    }
}

fn settings() -> Settings {
    Settings::of("operator-0", MANAGER)
}

async fn idle(writer: &StatusWriter) -> Result<(), TestError> {
    timeout(SOON, writer.idle()).await.map_err(|_| format!("not idle: {:?}", writer.stats()).into())
}

async fn get(control_plane: &ControlPlane, path: &str) -> Result<Value, TestError> {
    send(control_plane, Method::GET, path, &Value::Null).await
}

async fn create_block(
    namespace: &TestNamespace<'_>,
    name: &str,
    versions: &[&str],
) -> Result<String, TestError> {
    let name = namespace.cluster_wide(name);
    let object = json!({
        "apiVersion": API_VERSION, "kind": "VersionBlock", "metadata": {"name": name},
        "spec": {"versions": versions, "reason": "Old"},
    });
    let path = format!("/apis/{API_VERSION}/versionblocks");
    send(namespace.control_plane(), Method::POST, &path, &object).await?;
    Ok(name)
}

/// Version, generation and managers of every object of a test: what a write would change.
async fn versions(
    control_plane: &ControlPlane,
    places: &[String],
) -> Result<BTreeMap<String, Value>, TestError> {
    let mut versions = BTreeMap::new();
    for place in places {
        let object = get(control_plane, place).await?;
        versions.insert(place.clone(), object["metadata"]["resourceVersion"].clone());
    }
    Ok(versions)
}

async fn quiet(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            let mut places = Vec::new();
            for number in 0..5 {
                let spec =
                    json!({"enabled": true, "hostname": format!("lake-{number}"), "version": "2020.12.1"});
                create(namespace, &format!("lake-{number}"), spec).await?;
                places.push(format!("{}/lake-{number}", folder(namespace.name())));
            }
            let block = create_block(namespace, "block", &["<2021.1"]).await?;
            places.push(format!("/apis/{API_VERSION}/versionblocks/{block}"));

            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            until(&installation.observer, "the block", |objects| objects.blocks.contains_key(&block)).await?;
            let writer = StatusWriter::start(&control_plane.client(), settings());
            let plan = installation.turn(&writer);
            idle(&writer).await?;
            assert_eq!(writer.stats().written, 6);

            // All of it is there, word for word, and under the manager's name.
            for (id, status) in &plan.instances {
                let name = id.as_str().split_once('/').unwrap().1;
                let stored = get(control_plane, &format!("{}/{name}", folder(namespace.name()))).await?;
                assert_eq!(stored["status"], serde_json::to_value(&**status)?);
                assert_eq!(stored["status"]["blockedBy"], json!([block]));
                let managers = stored["metadata"]["managedFields"].as_array().unwrap();
                let ours = managers.iter().find(|entry| entry["manager"] == MANAGER).unwrap();
                assert_eq!((&ours["operation"], &ours["subresource"]), (&json!("Apply"), &json!("status")));
            }
            let stored = get(control_plane, places.last().unwrap()).await?;
            assert_eq!((&stored["status"]["matched"], &stored["status"]["blocked"]), (&json!(5), &json!(5)));

            // The watch brings all of it back. That is no reason to plan, and planning is no reason to write.
            let written = versions(control_plane, &places).await?;
            let told = |objects: &Objects| {
                objects
                    .instances_told
                    .values()
                    .chain(objects.blocks_told.get(&block))
                    .all(|told| told.digest.is_some())
            };
            let objects = until(&installation.observer, "the statuses", told).await?;
            for _ in 0..5 {
                writer.observed(&installation.objects());
                installation.turn(&writer);
                idle(&writer).await?;
            }
            assert!(installation.objects().instances.ptr_eq(&objects.instances));
            // Nor is it one for the next leader, who begins with what stands there.
            let next = Installation::start(&control_plane.client(), namespace.name()).await?;
            until(&next.observer, "the statuses", told).await?;
            let statuses = next.observer.take_statuses();
            let blocks = statuses.blocks.into_iter().filter(|(name, _)| *name == block);
            let inventory = Installation::inventory(&next.objects());
            let previous = Previous::remember(&inventory, statuses.instances, blocks.collect());
            let mut next = Installation { previous, now: installation.now, ..next };
            let next_writer = StatusWriter::start(&control_plane.client(), settings());
            let plan = next.turn(&next_writer);
            idle(&next_writer).await?;
            assert_eq!(plan.events, Vec::new());
            assert_eq!((writer.stats().written, next_writer.stats().written), (6, 0));
            assert_eq!(versions(control_plane, &places).await?, written);

            // One edit is one write of an instance, and one of the block's counts.
            let patch = json!({"spec": {"acceptedBlocks": [{"name": block}]}});
            send(control_plane, Method::PATCH, &places[0], &patch).await?;
            until(&installation.observer, "the edit", |seen| !seen.instances.ptr_eq(&objects.instances))
                .await?;
            installation.turn(&writer);
            idle(&writer).await?;
            assert_eq!(writer.stats().written, 8);
            Ok(())
        })
        .await
}

async fn meddling(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            create(namespace, "lake", json!({"enabled": true})).await?;
            let id = format!("{}/lake", namespace.name());
            let place = format!("{}/lake", folder(namespace.name()));
            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            let writer = StatusWriter::start(&control_plane.client(), settings());
            installation.turn(&writer);
            idle(&writer).await?;
            let ours = get(control_plane, &place).await?["status"].clone();
            let seen = until(&installation.observer, "the status", |objects| {
                objects.instances_told[&*id].digest.is_some()
            })
            .await?;
            writer.observed(&seen);

            // Another field manager takes a member, and adds a condition of its own.
            let mut theirs = ours.clone();
            theirs["url"] = json!("https://elsewhere.example.com");
            let mut conditions = ours["conditions"].as_array().unwrap().clone();
            let mut extra = conditions[0].clone();
            extra["type"] = json!("Audited");
            conditions.push(extra);
            theirs["conditions"] = json!(conditions);
            send(control_plane, Method::PATCH, &format!("{place}/status"), &json!({"status": theirs}))
                .await?;
            let before = seen.instances_told[&*id];
            let seen = until(&installation.observer, "the change", |objects| {
                objects.instances_told[&*id].digest != before.digest
            })
            .await?;
            writer.observed(&seen);
            let waiting = Instant::now() + SOON;
            while writer.stats().written < 2 {
                assert!(Instant::now() < waiting, "not set right: {:?}", writer.stats());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(writer.stats().contested, 1);
            let stored = get(control_plane, &place).await?["status"].clone();
            assert_eq!(stored["url"], ours["url"]);
            // A status is told by one, as a whole; once it is right there is no reason to write again.
            assert_eq!(stored, ours);
            let version = get(control_plane, &place).await?["metadata"]["resourceVersion"].clone();
            let number: u64 = version.as_str().unwrap().parse()?;
            let seen = until(&installation.observer, "the repair", |objects| {
                objects.instances_told[&*id].revision >= number
            })
            .await?;
            for _ in 0..3 {
                writer.observed(&seen);
                installation.turn(&writer);
                idle(&writer).await?;
            }
            assert_eq!(writer.stats().written, 2);
            assert_eq!(get(control_plane, &place).await?["metadata"]["resourceVersion"], version);
            Ok(())
        })
        .await
}

async fn gone(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            for name in ["gone", "again"] {
                create(namespace, name, json!({"enabled": true})).await?;
            }
            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            // What the leader knows is a moment old.
            let objects = installation.objects();
            let plan = installation.plan(&objects);
            for name in ["gone", "again"] {
                let place = format!("{}/{name}", folder(namespace.name()));
                send(control_plane, Method::DELETE, &place, &json!({})).await?;
            }
            create(namespace, "again", json!({})).await?;
            let writer = StatusWriter::start(&control_plane.client(), settings());
            let published = plan.published(plan.revision).unwrap();
            writer.tell(published, &objects, Blocks::Ours);
            writer.offer(published, &objects, Blocks::Ours);
            idle(&writer).await?;
            let stats = writer.stats();
            assert_eq!((stats.gone, stats.written, stats.refused, stats.failed), (1, 1, 0, 0), "{stats:?}");
            let answer = control_plane
                .exchange(Method::GET, &format!("{}/gone", folder(namespace.name())), &Value::Null)
                .await?;
            assert_eq!(answer.code, 404, "a status made an object");
            // Once the new one is seen, it gets its own.
            let again = format!("{}/again", folder(namespace.name()));
            let uid = get(control_plane, &again).await?["metadata"]["uid"].clone();
            let id = format!("{}/again", namespace.name());
            until(&installation.observer, "the new one", |objects| {
                objects
                    .instances
                    .get(&*id)
                    .is_some_and(|object| object.about().uid.as_deref() == uid.as_str())
            })
            .await?;
            let plan = installation.turn(&writer);
            let wanted = serde_json::to_value(&*plan.instances[&*id])?;
            let waiting = Instant::now() + SOON;
            while get(control_plane, &again).await?["status"] != wanted {
                assert!(Instant::now() < waiting, "not written: {:?}", writer.stats());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        })
        .await
}
