//! What an installation told of an object goes when it serves that no more, and what the next one has told stays.

use std::time::Duration;

use http::Method;
use kube::Client;
use latchkey_cluster_tests::{ControlPlane, Suite, TestError, TestNamespace};
use latchkey_operator::observe::{Observer, Scope};
use latchkey_operator::write_status::{Blocks, Settings, StatusWriter};
use planner::{Inventory, Previous, Timestamp, plan};
use resources::API_VERSION;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Installation, SOON, create_block, get, idle};
use crate::observe::{MANAGER, create, folder};
use crate::support::eventually;

/// The field manager of another installation.
const OTHER: &str = "latchkey-operator-status/other";

/// A leader of an installation, as far as statuses are concerned.
struct Leader {
    world: Installation,
    writer: StatusWriter,
    domain: &'static str,
}

impl Leader {
    async fn start(
        client: &Client,
        namespace: &str,
        manager: &str,
        domain: &'static str,
    ) -> Result<Self, TestError> {
        let world = Installation::start(client, namespace).await?;
        let scope = Scope::Namespaces([namespace.to_owned()].into());
        let observer = Observer::start(client, &scope, manager);
        timeout(SOON, observer.synced()).await?;
        let writer = StatusWriter::start(client, Settings::of("operator-0", manager));
        writer.adopt(observer.take_statuses().ours);
        Ok(Self { world: Installation { observer, ..world }, writer, domain })
    }

    /// Tells of the objects with these names, as an installation that serves no others does.
    async fn tell(&self, names: &[&str], blocks: Blocks) -> Result<(), TestError> {
        let objects = self.world.objects();
        let Inventory { settings, instances, blocks: all, facts } = Installation::inventory(&objects);
        let is_served = |id: &str| names.iter().any(|name| id.ends_with(&format!("/{name}")));
        let instances = instances.into_iter().filter(|(id, _)| is_served(id.as_str())).collect();
        let mut settings = (*settings).clone();
        settings.spec.domain = self.domain.parse()?;
        let inventory = Inventory { settings: settings.into(), instances, blocks: all, facts };
        let (plan, _) = plan(&inventory, &Previous::default(), Timestamp(1_795_255_200));
        let published = plan.published(plan.revision).ok_or("not published")?;
        self.writer.offer(published, &objects, blocks);
        idle(&self.writer).await
    }

    /// Has seen what was written until now.
    async fn catch_up(&self, control_plane: &ControlPlane, place: &str) -> Result<(), TestError> {
        let id = place.rsplit('/').next().unwrap_or_default();
        let version = get(control_plane, place).await?["metadata"]["resourceVersion"].clone();
        let version: u64 = version.as_str().unwrap_or_default().parse()?;
        eventually("the watch", async || {
            let objects = self.world.objects();
            let told = objects.instances_told.iter().find(|(found, _)| found.as_str().ends_with(id));
            let seen = told.map(|(_, told)| told.revision);
            if seen.is_some_and(|seen| seen >= version) { Ok(()) } else { Err(format!("{seen:?}").into()) }
        })
        .await?;
        self.writer.observed(&self.world.objects());
        Ok(())
    }
}

async fn url(control_plane: &ControlPlane, place: &str) -> Result<Option<String>, TestError> {
    Ok(get(control_plane, place).await?["status"]["url"].as_str().map(str::to_owned))
}

pub(super) async fn taken_back(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| by_one_and_the_next(control_plane, namespace).await)
        .await
}

async fn by_one_and_the_next(
    control_plane: &ControlPlane,
    namespace: &TestNamespace<'_>,
) -> Result<(), TestError> {
    let client = control_plane.client();
    let place = |name: &str| format!("{}/{name}", folder(namespace.name()));
    for name in ["lake", "hut", "cabin"] {
        create(namespace, name, json!({"enabled": true, "hostname": name})).await?;
    }
    let block = create_block(namespace, "block", &["<2021.1"]).await?;
    let block = format!("/apis/{API_VERSION}/versionblocks/{block}");
    let here = Leader::start(&client, namespace.name(), MANAGER, "here.example.com").await?;
    let there = Leader::start(&client, namespace.name(), OTHER, "there.example.com").await?;
    here.tell(&["lake", "hut", "cabin"], Blocks::Ours).await?;
    assert_eq!(url(control_plane, &place("lake")).await?.as_deref(), Some("https://lake.here.example.com"));
    assert!(get(control_plane, &block).await?["status"].is_object());
    // The other one serves the lake, and writes first. What is of both stays for the other one.
    there.tell(&["lake"], Blocks::AnotherInstallations).await?;
    for name in ["lake", "hut", "cabin"] {
        here.catch_up(control_plane, &place(name)).await?;
    }
    let theirs = get(control_plane, &place("lake")).await?["status"].clone();
    assert_eq!(theirs["url"], "https://lake.there.example.com");
    here.tell(&["cabin"], Blocks::AnotherInstallations).await?;
    let left = get(control_plane, &place("hut")).await?;
    assert!(left["status"].as_object().is_none_or(serde_json::Map::is_empty), "{}", left["status"]);
    assert!(get(control_plane, &block).await?["status"].as_object().is_none_or(serde_json::Map::is_empty));
    assert_eq!(get(control_plane, &place("lake")).await?["status"], theirs, "the other one's");
    assert!(url(control_plane, &place("cabin")).await?.is_some());

    // The next leader has told nothing itself, and knows by the managers what is this installation's.
    here.writer.stop().await;
    let next = Leader::start(&client, namespace.name(), MANAGER, "here.example.com").await?;
    next.catch_up(control_plane, &place("cabin")).await?;
    next.tell(&[], Blocks::AnotherInstallations).await?;
    assert!(url(control_plane, &place("cabin")).await?.is_none());
    assert_eq!(get(control_plane, &place("lake")).await?["status"], theirs, "the other one's");
    assert_eq!(next.writer.stats().written, 1, "of what was ours, and no more");

    // Somebody put the whole of it into place, so that an apply does not take it away.
    let path = format!("{}/status?fieldManager={OTHER}", place("cabin"));
    let change = json!({"status": {"url": "https://cabin.there.example.com"}});
    let written = update(control_plane, &path, &change).await?;
    assert_eq!(written["status"]["url"], "https://cabin.there.example.com");
    there.catch_up(control_plane, &place("cabin")).await?;
    there.tell(&["lake", "cabin"], Blocks::AnotherInstallations).await?;
    there.catch_up(control_plane, &place("cabin")).await?;
    there.tell(&["lake"], Blocks::AnotherInstallations).await?;
    assert!(url(control_plane, &place("cabin")).await?.is_none());
    Ok(())
}

/// Writes as who puts something into place, not as who applies.
async fn update(control_plane: &ControlPlane, path: &str, change: &Value) -> Result<Value, TestError> {
    let request = http::Request::builder()
        .method(Method::PATCH)
        .uri(path)
        .header("content-type", "application/merge-patch+json")
        .body(change.to_string().into_bytes())?;
    Ok(timeout(Duration::from_secs(10), control_plane.client().request(request)).await??)
}
