//! Statuses and events, as a real API server takes them: what is written, what is not, and how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::events::v1::Event as KubeEvent;
use kube::api::ListParams;
use kube::client::Body;
use kube::{Api, Client};
use latchkey_cluster_tests::{ControlPlane, Suite, TestError, TestNamespace};
use latchkey_operator::observe::{Objects, Observer, Scope};
use latchkey_operator::write_status::{Settings, StatusWriter};
use libtest_mimic::Trial;
use planner::{Facts, Inventory, Plan, Previous, Seed, Timestamp, plan};
use resources::{API_VERSION, InstallationSpec, Observed};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::observe::{create, folder, send, until};

/// What a busy machine may need for anything.
const SOON: Duration = Duration::from_secs(20);

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("write_status::what_differs_is_written_and_then_there_is_quiet", quiet),
        suite.test("write_status::what_somebody_else_changed_is_set_right", meddling),
        suite.test("write_status::an_object_that_is_gone_is_not_made_and_a_new_one_gets_its_own", gone),
        suite.test("write_status::an_api_server_that_asks_for_patience_gets_it", patience),
        suite.test("write_status::no_more_a_second_than_allowed_and_none_after_the_end", pace),
        suite.test("write_status::events_are_told_once_and_then_counted", events),
        suite.test("write_status::an_object_without_sense_gets_its_status", nonsense),
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
        let observer = Observer::start(client, &scope);
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

    fn inventory(&self, objects: &Objects) -> Inventory {
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
        let (plan, previous) = plan(&self.inventory(objects), &self.previous, self.now);
        self.previous = previous;
        plan
    }

    /// What a leader does with what there is now.
    fn turn(&mut self, writer: &StatusWriter) -> Plan {
        let objects = self.objects();
        let plan = self.plan(&objects);
        writer.offer(plan.published(plan.revision).unwrap(), &objects);
        plan
    }
}

fn settings() -> Settings {
    Settings::of("operator-0")
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
                let ours =
                    managers.iter().find(|entry| entry["manager"] == "latchkey-operator-status").unwrap();
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
            let inventory = next.inventory(&next.objects());
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
            // What is not ours is not taken away, and is no reason to write again.
            let kinds = stored["conditions"].as_array().unwrap().iter();
            assert_eq!(kinds.filter(|condition| condition["type"] == "Audited").count(), 1);
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
            writer.offer(plan.published(plan.revision).unwrap(), &objects);
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
                    .is_some_and(|object| object.metadata().uid.as_deref() == uid.as_str())
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

/// A client whose requests reach the API server, except for so many writes that are refused for a reason.
#[derive(Clone)]
struct Moody {
    client: Client,
    refusals: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
}

impl Moody {
    fn client(client: Client, refusals: u32) -> (Client, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        let moody = Self { client, refusals: Arc::new(AtomicU32::new(refusals)), asked: Arc::clone(&asked) };
        (Client::new(moody, "default"), asked)
    }
}

impl tower_service::Service<Request<Body>> for Moody {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.method() == Method::PATCH {
                this.asked.fetch_add(1, Ordering::Relaxed);
                let less = |left: u32| left.checked_sub(1);
                if this.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
                    let response = Response::builder()
                        .status(StatusCode::TOO_MANY_REQUESTS)
                        .header("retry-after", "1")
                        .body(Body::from(b"too many requests".to_vec()));
                    return Ok(response.unwrap());
                }
            }
            this.client.send(request).await
        })
    }
}

async fn patience(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            for number in 0..20 {
                create(namespace, &format!("lake-{number}"), json!({"enabled": true})).await?;
            }
            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            // The first four, at once; then, after a pause, one that is tried alone.
            let (client, asked) = Moody::client(control_plane.client(), 5);
            let writer = StatusWriter::start(&client, Settings { at_once: 4, ..settings() });
            let began = Instant::now();
            installation.turn(&writer);
            idle(&writer).await?;
            let (took, stats) = (began.elapsed(), writer.stats());
            assert_eq!((stats.written, stats.failed), (20, 5), "{stats:?}");
            assert_eq!(asked.load(Ordering::Relaxed), 25);
            assert!(took >= Duration::from_secs(2), "it waited twice for a second at least: {took:?}");
            Ok(())
        })
        .await
}

async fn pace(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            for number in 0..40 {
                create(namespace, &format!("lake-{number:02}"), json!({"enabled": true})).await?;
            }
            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            let slow = Settings { writes_per_second: 10, burst: 10, max_outbox: 15, ..settings() };
            let writer = StatusWriter::start(&control_plane.client(), slow);
            let began = Instant::now();
            installation.turn(&writer);
            idle(&writer).await?;
            let (took, stats) = (began.elapsed(), writer.stats());
            assert!(took >= Duration::from_millis(2_900), "40 writes in {took:?}");
            // Those that found no room were found again.
            assert_eq!(stats.written, 40, "{stats:?}");
            assert!(stats.dropped >= 25, "{stats:?}");

            // The end: what waits is not written.
            let told = |objects: &Objects| objects.instances_told.values().all(|told| told.digest.is_some());
            until(&installation.observer, "the statuses", told).await?;
            for number in 0..40 {
                let place = format!("{}/lake-{number:02}", folder(namespace.name()));
                let patch = json!({"spec": {"enabled": false}});
                send(control_plane, Method::PATCH, &place, &patch).await?;
            }
            until(&installation.observer, "the edits", |objects| {
                objects.instances.values().all(|object| object.metadata().generation == Some(2))
            })
            .await?;
            installation.turn(&writer);
            timeout(Duration::from_secs(5), writer.stop()).await?;
            let list = get(control_plane, &folder(namespace.name())).await?;
            let list = list["items"].as_array().unwrap();
            let new = list.iter().filter(|object| object["status"]["observedGeneration"] == 2).count();
            assert!(new < 40, "{new} were written");
            Ok(())
        })
        .await
}

async fn events(suite: Suite) -> Result<(), TestError> {
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
            // A leader offers a plan once; three times here, as when an instance flaps.
            for _ in 0..3 {
                writer.offer(published, &objects);
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

/// An object that was stored under another definition, and breaks the rules of this one.
async fn nonsense(_: Suite) -> Result<(), TestError> {
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
