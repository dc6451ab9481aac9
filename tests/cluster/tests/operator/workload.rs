//! The proxies' workload on a real API server with the real controllers of Kubernetes, and with no more rights than the
//! operator has. Nodes are pretended: [`crate::pretend_kubelet`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DynamicObject, EvictParams, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use latchkey_cluster_tests::{Suite, TestError, TestNamespace};
use latchkey_operator::names::Names;
use latchkey_operator::workload::Workload;
use latchkey_operator::workload::pods::ProxyPods;
use latchkey_operator::workload::roll::ProxySeen;
use latchkey_operator::workload::roll_shell::{ProxyView, RollPhase};
use latchkey_operator::workload::settings_source::SettingsSource;
use libtest_mimic::Trial;
use serde_json::json;

use crate::pretend_kubelet::PretendKubelet;
use crate::support::Account;

/// Longest wait for anything: two cores under load.
const WITHIN: Duration = Duration::from_mins(1);
const PROXY: &str = "latchkey-default-proxy";
/// Tunnels that each proxy holds.
const TUNNELS: u64 = 10;

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("workload::objects_are_made_and_drift_is_mended", made_and_mended),
        suite.test("workload::an_image_is_rolled_one_pod_after_the_other", rolled_in_order),
        suite.test("workload::a_bad_image_pauses_and_a_rollback_mends", paused_and_rolled_back),
        suite.test("workload::budgets_are_respected", budgets),
        suite.test("workload::a_pod_on_a_lost_node_is_replaced_after_a_minute", lost_node),
        suite.test("workload::nonsense_in_the_settings_is_told_and_changes_nothing", nonsense),
    ]
}

/// Stands for the operator's end of the link, which has tests of its own: every pod that is ready is attached, has the
/// current routes and the same number of tunnels.
struct EveryReadyPod(Arc<ProxyPods>);

impl ProxyView for EveryReadyPod {
    fn proxies(&self) -> BTreeMap<String, ProxySeen> {
        let seen = ProxySeen { is_current: true, tunnels: TUNNELS };
        self.0.ready().into_iter().filter(|(_, ready)| *ready).map(|(name, _)| (name, seen)).collect()
    }
}

/// An operator's workload in a namespace, and who looks after its pods.
struct World {
    /// Who may do everything.
    client: Client,
    /// Who may do what the operator may.
    operator: Client,
    namespace: String,
    names: Names,
    settings: Arc<SettingsSource>,
    pods: Arc<ProxyPods>,
    workload: Workload,
    kubelet: PretendKubelet,
    /// Seconds that the operator's clock is ahead.
    ahead: Arc<AtomicU64>,
    /// How often it was looked at: once each time the roll looks at everything.
    looks: Arc<AtomicU64>,
}

impl World {
    async fn start(namespace: &TestNamespace<'_>, settings: &str) -> Result<Self, TestError> {
        namespace.control_plane().start_controllers().await?;
        let client = namespace.control_plane().client();
        let names = Names { namespace: namespace.name().to_owned(), installation: "default".to_owned() };
        let (ahead, looks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        write_settings(&client, namespace.name(), settings).await?;
        let operator = Account::make(namespace, &names).await?.client().await?;
        let source = Arc::new(SettingsSource::start(operator.clone(), &names));
        let pods = Arc::new(ProxyPods::start(operator.clone(), &names));
        let view = Arc::new(EveryReadyPod(Arc::clone(&pods)));
        let (seconds, looked) = (Arc::clone(&ahead), Arc::clone(&looks));
        let clock = Arc::new(move || {
            looked.fetch_add(1, Ordering::SeqCst);
            Instant::now() + Duration::from_secs(seconds.load(Ordering::SeqCst))
        });
        let workload = Workload::start_at(&operator, &names, "test", &source, &pods, view, clock);
        let kubelet = PretendKubelet::start(&client, namespace.name());
        let namespace = namespace.name().to_owned();
        Ok(Self {
            client,
            operator,
            namespace,
            names,
            settings: source,
            pods,
            workload,
            kubelet,
            ahead,
            looks,
        })
    }

    /// The same, with three proxies that are ready.
    async fn ready(namespace: &TestNamespace<'_>) -> Result<Self, TestError> {
        let world = Self::start(namespace, &three("latchkey-proxy:1")).await?;
        world.until("three ready pods", async || world.ready_pods() == 3).await?;
        Ok(world)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn set(&self, settings: &str) -> Result<(), TestError> {
        write_settings(&self.client, &self.namespace, settings).await
    }

    fn ready_pods(&self) -> usize {
        self.pods.ready().values().filter(|ready| **ready).count()
    }

    async fn images(&self) -> Result<Vec<String>, TestError> {
        let pods = self.api::<Pod>().list(&kube::api::ListParams::default()).await?;
        let image = |pod: &Pod| pod.spec.as_ref()?.containers.first()?.image.clone();
        Ok(pods.items.iter().filter_map(image).collect())
    }

    async fn uids(&self) -> Result<Vec<String>, TestError> {
        let pods = self.api::<Pod>().list(&kube::api::ListParams::default()).await?;
        Ok(pods.items.iter().filter_map(ResourceExt::uid).collect())
    }

    /// Reasons and notes of the events about an object.
    async fn events(&self, about: &str) -> Result<Vec<(String, String)>, TestError> {
        let events = self.api::<k8s_openapi::api::events::v1::Event>();
        let events = events.list(&kube::api::ListParams::default()).await?.items;
        let is_ours = |event: &k8s_openapi::api::events::v1::Event| {
            let regarding = event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref());
            event.reporting_controller.as_deref() == Some("latchkey-operator") && regarding == Some(about)
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Ok(events
            .iter()
            .filter(|event| is_ours(event))
            .map(|event| (text(&event.reason), text(&event.note)))
            .collect())
    }

    async fn has_event(&self, about: &str, reason: &str, note: &str) -> bool {
        let events = self.events(about).await.unwrap_or_default();
        events.iter().any(|(found, said)| found == reason && said.contains(note))
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) -> Result<(), TestError> {
        let began = Instant::now();
        while !holds().await {
            if began.elapsed() > WITHIN {
                let roll = self.workload.roll().borrow().clone();
                let (pods, problems) = (self.pods.pods(), self.workload.problems());
                let (stats, ended) = (self.workload.stats(), self.kubelet.ended());
                return Err(format!(
                    "{what} did not come; roll {roll:?}, {stats:?}, ended {ended:?}, pods {pods:?}, problems {problems:?}"
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Time passes, and the roll has looked at everything since: twice, since the first look may be of before.
    async fn pass(&self, seconds: u64) -> Result<(), TestError> {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
        let looked = self.looks.load(Ordering::SeqCst);
        self.until("two looks", async || self.looks.load(Ordering::SeqCst) >= looked + 3).await
    }

    async fn until_rolled(&self, image: &str) -> Result<(), TestError> {
        self.until(&format!("three pods with {image}"), async || {
            let images = self.images().await.unwrap_or_default();
            let idle = self.workload.roll().borrow().phase == RollPhase::Idle;
            idle && self.ready_pods() == 3 && images.len() == 3 && images.iter().all(|found| found == image)
        })
        .await
    }
}

fn three(image: &str) -> String {
    format!("spec: {{domain: ui.example.com}}\nproxies: {{image: '{image}', replicas: 3}}")
}

async fn write_settings(client: &Client, namespace: &str, settings: &str) -> Result<(), TestError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "latchkey-default"},
        "data": {"installation.yaml": settings},
    });
    api.patch("latchkey-default", &PatchParams::apply("test").force(), &Patch::Apply(&map)).await?;
    Ok(())
}

/// Each object of the workload, without what controllers write into it.
async fn spec_versions(world: &World) -> Result<BTreeMap<String, String>, TestError> {
    let mut versions = BTreeMap::new();
    let kinds = [
        (ApiResource::erase::<ServiceAccount>(&()), PROXY),
        (ApiResource::erase::<NetworkPolicy>(&()), PROXY),
        (ApiResource::erase::<Service>(&()), PROXY),
        (ApiResource::erase::<Service>(&()), "latchkey-default-proxy-peers"),
        (ApiResource::erase::<PodDisruptionBudget>(&()), PROXY),
        (ApiResource::erase::<StatefulSet>(&()), PROXY),
    ];
    for (resource, name) in kinds {
        let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &resource);
        if let Some(object) = api.get_opt(name).await? {
            // Where there is a generation, statuses change the version too.
            let generation = object.metadata.generation.map(|number| format!("generation {number}"));
            let version = generation.or_else(|| object.resource_version()).unwrap_or_default();
            versions.insert(format!("{} {name}", resource.kind), version);
        }
    }
    Ok(versions)
}

async fn made_and_mended(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let world = World::ready(namespace).await?;
        let made = spec_versions(&world).await?;
        assert_eq!(made.len(), 6, "{made:?}");
        let applied = || world.workload.stats().applied.load(Ordering::Relaxed);
        assert_eq!(applied(), 6, "each was written once");

        // Drift is mended; what others add stays.
        let patch = PatchParams::default();
        let budget = json!({"spec": {"maxUnavailable": 3}});
        world.api::<PodDisruptionBudget>().patch(PROXY, &patch, &Patch::Merge(&budget)).await?;
        let service = json!({"metadata": {"annotations": {"example.com/theirs": "1"}, "labels": {"app.kubernetes.io/part-of": "x"}}});
        world.api::<Service>().patch(PROXY, &patch, &Patch::Merge(&service)).await?;
        world.api::<NetworkPolicy>().delete(PROXY, &kube::api::DeleteParams::default()).await?;
        world
            .until("mended objects", async || {
                let budget = world.api::<PodDisruptionBudget>().get(PROXY).await.unwrap();
                let service = world.api::<Service>().get(PROXY).await.unwrap();
                let policy = world.api::<NetworkPolicy>().get_opt(PROXY).await.unwrap();
                let unavailable = serde_json::to_value(budget.spec.unwrap().max_unavailable).unwrap();
                let part = service.labels().get("app.kubernetes.io/part-of").cloned();
                unavailable == json!(1) && part.as_deref() == Some("latchkey") && policy.is_some()
            })
            .await?;
        let theirs =
            world.api::<Service>().get(PROXY).await?.annotations().get("example.com/theirs").cloned();
        assert_eq!(theirs.as_deref(), Some("1"));

        // An annotation that leaves the settings leaves the object; nothing else is written.
        let (before, count) = (spec_versions(&world).await?, applied());
        let annotated =
            three("latchkey-proxy:1").replace("replicas: 3", "replicas: 3, service: {annotations: {a: b}}");
        let has_a = async || world.api::<Service>().get(PROXY).await.unwrap().annotations().contains_key("a");
        world.set(&annotated).await?;
        world.until("the annotation", has_a).await?;
        world.set(&three("latchkey-proxy:1")).await?;
        world.until("no annotation", async || !has_a().await).await?;
        assert_eq!(applied(), count + 2);
        let after = spec_versions(&world).await?;
        let changed: Vec<_> =
            before.iter().filter(|(name, version)| after.get(*name) != Some(version)).collect();
        assert_eq!(changed.len(), 1, "the public Service alone: {changed:?}");

        // Another leader finds everything as it shall be, and writes what is new alone.
        let World { client, operator, names, settings, pods, workload, kubelet, .. } = world;
        drop(workload);
        let view = Arc::new(EveryReadyPod(Arc::clone(&pods)));
        let next = Workload::start(&operator, &names, "next", &settings, &pods, view);
        write_settings(
            &client,
            namespace.name(),
            &three("latchkey-proxy:1").replace("replicas: 3", "replicas: 2"),
        )
        .await?;
        let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace.name());
        let began = Instant::now();
        while sets.get(PROXY).await?.spec.replicas != Some(2) {
            assert!(began.elapsed() < WITHIN);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(next.stats().applied.load(Ordering::Relaxed), 1, "{:?}", next.problems());
        drop(kubelet);
        Ok(())
    };
    suite.control_plane().await?.in_namespace("workload-objects", test).await
}

async fn rolled_in_order(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let world = World::ready(namespace).await?;
        let before = world.uids().await?;
        // Not in the pods' template: nobody is restarted.
        world
            .set(&three("latchkey-proxy:1").replace(
                "replicas: 3",
                "replicas: 3, service: {port: 8443}, roll: {readyWithinSeconds: 200}",
            ))
            .await?;
        let port =
            async || world.api::<Service>().get(PROXY).await.ok()?.spec?.ports?.first().map(|port| port.port);
        world.until("the port", async || port().await == Some(8443)).await?;
        assert_eq!((world.uids().await?, world.kubelet.ended()), (before, Vec::new()));

        world.set(&three("latchkey-proxy:2")).await?;
        world.until_rolled("latchkey-proxy:2").await?;
        let ended: Vec<(String, usize)> =
            (0..3).rev().map(|ordinal| (format!("{PROXY}-{ordinal}"), 2)).collect();
        assert_eq!(
            world.kubelet.ended(),
            ended,
            "the highest number first, and always with both others ready"
        );
        world.until("the event", async || world.has_event(PROXY, "RollFinished", "").await).await?;
        let told = world.events(PROXY).await?;
        assert_eq!(told.iter().filter(|(reason, _)| reason == "ProxyReplaced").count(), 3, "{told:?}");
        assert_eq!(told.iter().filter(|(reason, _)| reason == "RollFinished").count(), 1, "{told:?}");
        Ok(())
    };
    suite.control_plane().await?.in_namespace("workload-roll", test).await
}

async fn paused_and_rolled_back(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let world = World::ready(namespace).await?;
        world.set(&three("latchkey-proxy:bad")).await?;
        let paused = async || world.workload.roll().borrow().phase == RollPhase::Paused;
        world.until("the pause", paused).await?;
        let reason = world.workload.roll().borrow().reason.clone();
        assert!(reason.contains(&format!("{PROXY}-2")) && reason.contains("ImagePullBackOff"), "{reason}");
        world
            .until("the event", async || world.has_event(PROXY, "RollPaused", "ImagePullBackOff").await)
            .await?;
        // Time does not make it go on.
        world.pass(3600).await?;
        assert!(paused().await && world.ready_pods() == 2);
        assert_eq!(world.kubelet.ended().len(), 1);

        world.set(&three("latchkey-proxy:1")).await?;
        world.until_rolled("latchkey-proxy:1").await?;
        let names: Vec<String> = world.kubelet.ended().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [format!("{PROXY}-2"), format!("{PROXY}-2")],
            "pods that were right were left alone"
        );
        assert_eq!(world.workload.stats().pauses.load(Ordering::Relaxed), 1);
        Ok(())
    };
    suite.control_plane().await?.in_namespace("workload-pause", test).await
}

async fn budgets(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let world = World::ready(namespace).await?;
        let pods = world.api::<Pod>();
        let healthy = async |number: i32| {
            let budget =
                world.api::<PodDisruptionBudget>().get(PROXY).await.ok().and_then(|budget| budget.status);
            budget.is_some_and(|status| status.current_healthy == Some(number))
        };
        world.until("a counted budget", async || healthy(3).await).await?;
        // What `kubectl drain` would do.
        world.kubelet.say_ready(&format!("{PROXY}-0"), false);
        world.until("one that is not ready", async || healthy(2).await).await?;
        let refused = pods.evict(&format!("{PROXY}-1"), &EvictParams::default()).await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 429), "{refused:?}");
        pods.evict(&format!("{PROXY}-0"), &EvictParams::default()).await?;
        world.kubelet.say_ready(&format!("{PROXY}-0"), true);
        world.until("all ready again", async || healthy(3).await && world.ready_pods() == 3).await?;

        // A second budget over the same pods makes every eviction fail: the roll waits, and tries again.
        let second = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "second"},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app.kubernetes.io/name": "latchkey-proxy"}}},
        });
        let budgets = world.api::<PodDisruptionBudget>();
        budgets.patch("second", &PatchParams::apply("test"), &Patch::Apply(&second)).await?;
        world.set(&three("latchkey-proxy:2")).await?;
        let refused = || world.workload.stats().evictions_refused.load(Ordering::Relaxed);
        world.until("a refusal", async || refused() > 0).await?;
        let reason = world.workload.roll().borrow().reason.clone();
        assert_eq!(world.kubelet.ended().len(), 1, "{reason}");
        budgets.delete("second", &kube::api::DeleteParams::default()).await?;
        world.pass(10).await?;
        world.until_rolled("latchkey-proxy:2").await
    };
    suite.control_plane().await?.in_namespace("workload-budget", test).await
}

async fn lost_node(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let world = World::ready(namespace).await?;
        let name = format!("{PROXY}-1");
        let pod = world.pods.pods().get(&name).cloned().ok_or("no such pod")?;
        world.kubelet.lose(pod.node.as_deref().ok_or("no node")?).await?;
        world.until("a pod that is not ready", async || world.ready_pods() == 2).await?;
        // Its minute begins when it is seen as lost.
        let lost = || world.workload.stats().lost.load(Ordering::Relaxed);
        world.until("a lost node", async || lost() == 1).await?;
        world.pass(30).await?;
        assert_eq!(world.pods.pods().get(&name).map(|pod| pod.uid.clone()), Some(pod.uid.clone()), "not yet");
        world.pass(30).await?;
        world
            .until("another pod", async || {
                let now = world.pods.pods();
                world.ready_pods() == 3
                    && now.get(&name).is_some_and(|now| now.uid != pod.uid && now.node != pod.node)
            })
            .await?;
        assert_eq!(world.workload.stats().force_deleted.load(Ordering::Relaxed), 1);
        world.until("the event", async || world.has_event(PROXY, "ProxyForceDeleted", &name).await).await
    };
    suite.control_plane().await?.in_namespace("workload-lost", test).await
}

async fn nonsense(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let world = World::start(namespace, "spec: {}").await?;
        world.settings.synced().await;
        assert!(world.settings.settings().is_none());
        let told = async |what: &str| world.has_event("latchkey-default", "SettingsRefused", what).await;
        world.until("the event", async || told("spec.domain: is missing").await).await?;
        world.set(&three("latchkey-proxy:1")).await?;
        world.until("three ready pods", async || world.ready_pods() == 3).await?;
        assert_eq!(world.settings.problem(), None);
        let before = spec_versions(&world).await?;
        world.set(&three("latchkey-proxy:1").replace("replicas", "replica")).await?;
        world.until("the event", async || told("did you mean `replicas`?").await).await?;
        assert_eq!(spec_versions(&world).await?, before, "what runs goes on");
        assert!(world.settings.settings().is_some_and(|settings| settings.proxies.replicas == 3));
        Ok(())
    };
    suite.control_plane().await?.in_namespace("workload-nonsense", test).await
}
