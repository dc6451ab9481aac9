//! Every scenario of tests/scenarios that an API server allows, played by the operator's parts: objects are applied to a
//! real API server and seen by watches, routes are read as a proxy reads them, statuses as the API server has them. Only what
//! proxies and DNS say is the scenario's own, and the time: a scenario may last for months.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use latchkey_cluster_tests::{ControlPlane, Suite, TestError};
use latchkey_operator::names::Names;
use latchkey_operator::observe::{Objects, Observer, Scope};
use latchkey_operator::released::Released;
use latchkey_operator::write_status::{Blocks, Settings as Writing, StatusWriter};
use libtest_mimic::Trial;
use operator_link::{Position, Read, UpdateReader, UpdateWriter};
use planner::{Facts, Inventory, Plan, Previous, Seed, Settings, plan};
use resources::{
    AGENT_KEYS_ANNOTATION, API_VERSION, Installation, RemoteInstance, RemoteInstanceStatus, VersionBlock,
    VersionBlockStatus,
};
use route_table::{Route, RouteTable};
use scenarios::{Instant, Need, ObjectRef, Outcome, SEED, Surroundings, World, play, read_folder};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::support::eventually;

/// Fewer mean that some were lost.
const LEAST: usize = 90;
/// What an API server with these definitions does not allow, and what only a folder can know.
const CANNOT: [Need; 3] = [Need::UnvalidatedObjects, Need::MutableFields, Need::RemembersDeleted];
/// An API server writes times in whole seconds.
const OLDER: Duration = Duration::from_millis(1_100);

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![suite.test("scenarios::played_by_the_operator", played)]
}

async fn played(_: Suite) -> Result<(), TestError> {
    // Blocks are for the whole cluster, so no other test may be in it.
    let control_plane = ControlPlane::start().await?;
    control_plane.install_definitions().await?;
    let all = read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios"))?;
    let only = std::env::var("SCENARIO").ok();
    let (mut count, mut failed) = (0, Vec::new());
    for (path, scenario) in all {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if CANNOT.iter().any(|need| scenario.needs.contains(need))
            || only.as_ref().is_some_and(|part| !name.contains(part.as_str()))
        {
            continue;
        }
        count += 1;
        let mut world = ClusterWorld::begin(&control_plane).await?;
        let result = play(&scenario, &mut world);
        world.end().await?;
        if let Err(failure) = result {
            failed.push(format!("{name}: {}\n{failure}", scenario.title));
        }
    }
    assert!(only.is_some() || count >= LEAST, "only {count} scenarios were played");
    told(count);
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}

#[expect(clippy::print_stderr, reason = "a figure for whoever runs it")]
fn told(count: usize) {
    eprintln!("scenarios::played_by_the_operator: {count} scenarios");
}

/// The operator's parts, around one API server.
struct ClusterWorld<'a> {
    control_plane: &'a ControlPlane,
    names: Names,
    observer: Observer,
    writer: StatusWriter,
    released: Released,
    previous: Option<Previous>,
    surroundings: Surroundings,
    /// A proxy, as far as it reads.
    proxy: UpdateReader,
    /// Where the objects are.
    paths: BTreeMap<ObjectRef, String>,
    namespaces: BTreeSet<String>,
}

impl<'a> ClusterWorld<'a> {
    async fn begin(control_plane: &'a ControlPlane) -> Result<Self, TestError> {
        let client = control_plane.client();
        let names = Names { namespace: "latchkey".to_owned(), installation: "main".to_owned() };
        let mut world = Self {
            control_plane,
            observer: Observer::start(&client, &Scope::All, &names.status_manager()),
            writer: StatusWriter::start(&client, Writing::of("tests", names.status_manager())),
            released: Released::read(client, &names).await?,
            names,
            previous: None,
            surroundings: Surroundings::default(),
            proxy: UpdateReader::default(),
            paths: BTreeMap::new(),
            namespaces: BTreeSet::new(),
        };
        world.namespace("latchkey").await?;
        world.observer.synced().await;
        Ok(world)
    }

    /// Takes away what the scenario left.
    async fn end(mut self) -> Result<(), TestError> {
        for path in std::mem::take(&mut self.paths).into_values() {
            self.control_plane.exchange(Method::DELETE, &path, &json!({})).await?;
        }
        let path = format!("/api/v1/namespaces/latchkey/configmaps/{}", self.names.released());
        self.control_plane.exchange(Method::DELETE, &path, &json!({})).await?;
        self.writer.stop().await;
        Ok(())
    }

    async fn namespace(&mut self, name: &str) -> Result<(), TestError> {
        if self.namespaces.insert(name.to_owned()) {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            self.control_plane.exchange(Method::POST, "/api/v1/namespaces", &namespace).await?;
        }
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, TestError> {
        let answer = self.control_plane.exchange(method, path, body).await?;
        if answer.is_success() {
            Ok(answer.body)
        } else {
            Err(format!("{path}: {}", answer.message()).into())
        }
    }

    /// Writes an object as it is: what is left out is gone.
    async fn write(
        &mut self,
        object: &Value,
        enrolled: &BTreeMap<String, Vec<String>>,
    ) -> Result<(), TestError> {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
        let (reference, folder) = if text("/kind") == "VersionBlock" {
            (ObjectRef::Block(name.clone()), format!("/apis/{API_VERSION}/versionblocks"))
        } else {
            self.namespace(&namespace).await?;
            let folder = format!("/apis/{API_VERSION}/namespaces/{namespace}/remoteinstances");
            (ObjectRef::Instance(format!("{namespace}/{name}")), folder)
        };
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("creationTimestamp");
        }
        if let ObjectRef::Instance(id) = &reference {
            enrol(&mut object, enrolled.get(id).map(Vec::as_slice).unwrap_or_default());
        }
        let path = format!("{folder}/{name}");
        if self.paths.contains_key(&reference) {
            let there = self.send(Method::GET, &path, &Value::Null).await?;
            object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
            self.send(Method::PUT, &path, &object).await?;
        } else {
            self.send(Method::POST, &folder, &object).await?;
        }
        self.paths.insert(reference, path);
        Ok(())
    }

    /// Everything that a step does to objects.
    async fn change(&mut self, instant: &Instant<'_>) -> Result<(), TestError> {
        let mut by_time: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for object in instant.apply {
            let created = object.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
            by_time.entry(created.unwrap_or_default()).or_default().push(object);
        }
        let groups = by_time.len();
        for (number, objects) in by_time.into_values().enumerate() {
            for object in objects {
                self.write(object, instant.enrolled).await?;
            }
            if number + 1 < groups {
                tokio::time::sleep(OLDER).await;
            }
        }
        for gone in instant.delete {
            let path = self.paths.remove(gone).ok_or_else(|| format!("there is no {gone} to delete"))?;
            self.send(Method::DELETE, &path, &json!({})).await?;
        }
        // Keys join and leave without anybody writing the object anew.
        for (id, keys) in instant.enrolled {
            let Some(path) = self.paths.get(&ObjectRef::Instance(id.clone())) else { continue };
            let written = instant.apply.iter().any(|object| {
                path.ends_with(&format!(
                    "/{}/remoteinstances/{}",
                    object["metadata"]["namespace"].as_str().unwrap_or_default(),
                    object["metadata"]["name"].as_str().unwrap_or_default()
                ))
            });
            if !written {
                let now = json!({"metadata": {"annotations": {AGENT_KEYS_ANNOTATION: keys.join(",")}}});
                self.send(Method::PATCH, path, &now).await?;
            }
        }
        Ok(())
    }

    /// Waits until the watches have told what the API server has.
    async fn seen(&self) -> Result<Objects, TestError> {
        let mut wanted = BTreeMap::new();
        for (reference, path) in &self.paths {
            let object = self.send(Method::GET, path, &Value::Null).await?;
            let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse()?;
            wanted.insert(reference.to_string(), version);
        }
        eventually("the watches have told everything", async || {
            let objects = self.observer.objects();
            let instances = objects.instances_told.iter().map(|(id, told)| (id.to_string(), told.revision));
            let blocks = objects.blocks_told.iter().map(|(name, told)| (name.clone(), told.revision));
            let told: BTreeMap<_, _> = instances.chain(blocks).collect();
            if told == wanted { Ok(objects) } else { Err(format!("{told:?}, not {wanted:?}").into()) }
        })
        .await
    }

    async fn step(&mut self, instant: &Instant<'_>) -> Result<Outcome, TestError> {
        let client = self.control_plane.client();
        self.change(instant).await?;
        if instant.restart {
            self.observer = Observer::start(&client, &Scope::All, &self.names.status_manager());
            self.observer.synced().await;
            self.writer = StatusWriter::start(&client, Writing::of("tests", self.names.status_manager()));
            self.released = Released::read(client, &self.names).await?;
            self.previous = None;
            self.surroundings.restart();
        }
        let objects = self.seen().await?;
        let installation: Installation = serde_json::from_value(instant.installation.clone())?;
        let domain = installation.spec.domain.clone();
        let settings =
            Settings { name: installation.metadata.name, spec: installation.spec, seed: Seed::new(SEED) };
        let whole = Inventory {
            settings: Arc::new(settings),
            instances: objects.instances.clone(),
            blocks: objects.blocks.clone(),
            facts: Facts::default(),
        };
        let told = self.previous.is_none().then(|| self.observer.take_statuses());
        if let Some(told) = told {
            self.writer.adopt(told.ours);
            let facts = self.surroundings.facts.clone();
            let inventory = Inventory { facts, ..whole.clone() };
            self.previous = Some(Previous::remember(&inventory, told.instances, told.blocks));
        }
        let Self { surroundings, previous, released, .. } = self;
        let mut last: Option<Plan> = None;
        let mut events = Vec::new();
        let outcome = surroundings.play(instant, |facts| {
            let facts = Facts { released: released.labels().clone(), ..facts.clone() };
            let inventory = Inventory { facts, ..whole.clone() };
            let (made, next) = plan(&inventory, &previous.take().unwrap_or_default(), instant.now);
            *previous = Some(next);
            wait_for(released.keep(&made.released)).map_err(|error| error.to_string())?;
            events.extend(made.events.clone());
            last = Some(made.clone());
            Ok(made)
        })?;
        let last = last.ok_or("no plan was made")?;
        let published = last.published(last.revision).ok_or("not published")?;
        self.writer.offer(published, &objects, Blocks::Ours);
        self.writer.idle().await;
        let routes = self.routes(&last, &domain)?;
        Ok(Outcome {
            routes,
            instances: self.instance_statuses().await?,
            blocks: self.block_statuses().await?,
            ..outcome
        })
    }

    /// The routes as a proxy has them.
    fn routes(
        &mut self,
        plan: &Plan,
        domain: &route_table::HostName,
    ) -> Result<BTreeMap<String, Route>, TestError> {
        let to = Position { term: 1, revision: plan.revision };
        let mut writer = UpdateWriter::default();
        for part in writer.everything(to, domain, plan.routes.values().cloned()) {
            if let Read::Table(_, table) = self.proxy.take(part, None)? {
                return Ok(by_id(&table));
            }
        }
        Err("the last part never came".into())
    }

    async fn instance_statuses(&self) -> Result<BTreeMap<String, RemoteInstanceStatus>, TestError> {
        let mut statuses = BTreeMap::new();
        for (reference, path) in &self.paths {
            if let ObjectRef::Instance(id) = reference {
                let object: RemoteInstance =
                    serde_json::from_value(self.send(Method::GET, path, &Value::Null).await?)?;
                statuses.extend(object.status.map(|status| (id.clone(), status)));
            }
        }
        Ok(statuses)
    }

    async fn block_statuses(&self) -> Result<BTreeMap<String, VersionBlockStatus>, TestError> {
        let mut statuses = BTreeMap::new();
        for (reference, path) in &self.paths {
            if let ObjectRef::Block(name) = reference {
                let object: VersionBlock =
                    serde_json::from_value(self.send(Method::GET, path, &Value::Null).await?)?;
                statuses.extend(object.status.map(|status| (name.clone(), status)));
            }
        }
        Ok(statuses)
    }
}

fn by_id(table: &RouteTable) -> BTreeMap<String, Route> {
    table.routes().map(|route| (route.id.to_string(), route.clone())).collect()
}

/// Scenarios are played by a plain function.
fn wait_for<T>(what: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| Handle::current().block_on(what))
}

/// Adds enrolled keys to an object's annotation, as joining does.
fn enrol(object: &mut Value, keys: &[String]) {
    if keys.is_empty() {
        return;
    }
    let written =
        object["metadata"]["annotations"][AGENT_KEYS_ANNOTATION].as_str().unwrap_or_default().to_owned();
    let all: Vec<&str> =
        written.split(',').filter(|key| !key.is_empty()).chain(keys.iter().map(String::as_str)).collect();
    object["metadata"]["annotations"][AGENT_KEYS_ANNOTATION] = json!(all.join(","));
}

impl World for ClusterWorld<'_> {
    fn play(&mut self, instant: &Instant<'_>) -> Result<Outcome, String> {
        wait_for(self.step(instant)).map_err(|error| error.to_string())
    }
}
