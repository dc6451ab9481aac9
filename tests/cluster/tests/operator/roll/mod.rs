//! Proxies are rolled: real ones, as processes of pods ([`crate::kubelet`]), by the real operator with its workload, while
//! real agents are connected and visitors never stop.

mod balancer;
mod visitors;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use latchkey_cluster_tests::{Suite, TestError, TestNamespace};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::kubelet::{Image, Kubelet, Machine, Running};
use crate::support::{DOMAIN, Installation, eventually, get, program};
use balancer::Balancer;
use visitors::{Pods, Seen, Visitors, holder, visit};

/// Ports of a proxy's pod.
const PUBLIC_PORT: u16 = 8443;
const ADMIN_PORT: u16 = 9100;
/// Proxies, and agents that are connected.
const PROXIES: usize = 3;
const AGENTS: usize = 6;

const GOOD: &str = "registry.invalid/latchkey-proxy:1";
const BETTER: &str = "registry.invalid/latchkey-proxy:2";
const BROKEN: &str = "registry.invalid/latchkey-proxy:broken";
const LOST: &str = "registry.invalid/latchkey-proxy:lost";

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("roll::another_image_replaces_every_proxy_and_no_visitor_minds", replaced),
        suite.test("roll::bad_images_pause_it_and_the_old_one_mends", paused),
    ]
}

/// Settings of the proxies.
fn proxies(image: &str) -> Value {
    json!({
        "image": image,
        "replicas": PROXIES,
        "graceSeconds": 15,
        "arguments": ["--data-threads=1"],
        "roll": {"readyWithinSeconds": 20, "tunnelsWithinSeconds": 60},
    })
}

/// An installation whose proxies are pods.
struct World<'a, 'b> {
    here: Installation<'a, 'b>,
    kubelet: Arc<Kubelet>,
    _balancer: Balancer,
}

impl<'a, 'b> World<'a, 'b> {
    /// Proxies are ready, and agents connected.
    async fn start(namespace: &'a TestNamespace<'b>) -> Result<Self, TestError> {
        namespace.control_plane().start_controllers().await?;
        let client = namespace.control_plane().client();
        let mut here = Installation::begin(namespace).await?;
        here.keep_proxies(&proxies(GOOD)).await?;
        let proxy = program("latchkey-proxy")?;
        let images = [
            (GOOD, Image::Program(proxy.clone())),
            (BETTER, Image::Program(proxy.clone())),
            (BROKEN, Image::Broken),
            (LOST, Image::Lost(proxy)),
        ];
        let machine = Machine {
            images: images.map(|(name, image)| (name.to_owned(), image)).into(),
            operators: here.links.clone(),
            folder: here.path("pods"),
        };
        let kubelet = Arc::new(Kubelet::start(&client, namespace.name(), machine).await?);
        let balancer = Balancer::start(here.tunnel_address(), PUBLIC_PORT, kubelet.endpoints()).await?;
        here.start_operator(0)?;
        here.operator_ready(0).await?;
        let mut world = Self { here, kubelet, _balancer: balancer };
        world.ready_with(GOOD).await?;
        for which in 0..AGENTS {
            let name = format!("house-{which}");
            world.here.apply(&instance(&name)).await?;
            world.here.condition(&name, "Programmed", "True").await?;
            world.here.start_agent(&name, "2026.11.1").await?;
        }
        let pods = world.pods();
        for (instance, host, page) in world.guests() {
            eventually("a page", async || match visit(&pods, &instance, &host).await? {
                (found, _) if found == page => Ok(()),
                (found, _) => Err(found.into()),
            })
            .await?;
        }
        Ok(world)
    }

    /// Instances, their hosts and pages.
    fn guests(&self) -> Vec<(String, String, String)> {
        let namespace = &self.here.names.namespace;
        let guest = |which| {
            let name = format!("house-{which}");
            (format!("{namespace}/{name}"), format!("{name}.{DOMAIN}"), format!("the page of {name}"))
        };
        (0..AGENTS).map(guest).collect()
    }

    fn pods(&self) -> Pods {
        let kubelet = Arc::clone(&self.kubelet);
        Arc::new(move || kubelet.pods().into_values().collect())
    }

    fn visitors(&self) -> Visitors {
        Visitors::start(&self.pods(), self.guests())
    }

    /// A pod's name.
    fn pod(&self, ordinal: usize) -> String {
        format!("{}-{ordinal}", self.here.names.proxies())
    }

    async fn ready_with(&self, image: &str) -> Result<BTreeMap<String, Running>, TestError> {
        eventually(&format!("{PROXIES} ready pods with {image}"), async || {
            let pods = self.kubelet.pods();
            let is_right = |pod: &Running| pod.is_ready && !pod.is_ending && pod.image == image;
            if pods.len() == PROXIES && pods.values().all(is_right) {
                Ok(pods)
            } else {
                Err(format!("{pods:?}").into())
            }
        })
        .await
    }

    /// `/proxies` of the operator.
    async fn told(&self) -> Result<Value, TestError> {
        let (_, text) = get(self.here.operators[&0].admin, "/proxies").await?;
        Ok(serde_json::from_str(&text)?)
    }

    async fn phase(&self, phase: &str, reason: &str) -> Result<String, TestError> {
        eventually(&format!("the roll is {phase} ({reason})"), async || {
            let told = self.told().await?;
            let found = told["roll"]["reason"].as_str().unwrap_or_default().to_owned();
            if told["roll"]["phase"] == phase && found.contains(reason) {
                Ok(found)
            } else {
                Err(told.to_string().into())
            }
        })
        .await
    }

    /// What `latchkey status` says of an operator: its exit code, and its words.
    async fn status(&self, operator: usize, more: &[&str]) -> Result<(Option<i32>, String), TestError> {
        let admin = self.here.operators[&operator].admin.to_string();
        let said = tokio::process::Command::new(program("latchkey")?)
            .args(["status", "--admin", &admin])
            .args(more)
            .output()
            .await?;
        let text = [said.stdout, said.stderr].concat();
        Ok((said.status.code(), String::from_utf8(text)?))
    }

    /// Waits until `latchkey status` ends with a code, and says these words.
    async fn says(&self, operator: usize, more: &[&str], code: i32, words: &[&str]) -> Result<(), TestError> {
        eventually(&format!("latchkey status of operator-{operator} with {code}, {words:?}"), async || {
            let (found, said) = self.status(operator, more).await?;
            let is_right = found == Some(code) && words.iter().all(|word| said.contains(word));
            if is_right { Ok(()) } else { Err(format!("{found:?}: {said}").into()) }
        })
        .await
    }

    /// A metric of the operator.
    async fn metric(&self, name: &str) -> Result<String, TestError> {
        let (_, text) = get(self.here.operators[&0].admin, "/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("latchkey_operator_{name} ")));
        Ok(line.ok_or_else(|| format!("no metric {name} in {text}"))?.to_owned())
    }

    /// Reasons and notes of events about the `StatefulSet`.
    async fn events(&self) -> Result<Vec<(String, String)>, TestError> {
        let client = self.here.namespace.control_plane().client();
        let events = Api::<Event>::namespaced(client, &self.here.names.namespace);
        let events = events.list(&ListParams::default()).await?.items;
        let about = |event: &Event| {
            let regarding = event.regarding.as_ref();
            regarding.is_some_and(|what| {
                what.kind.as_deref() == Some("StatefulSet") && what.name == Some(self.here.names.proxies())
            }) && event.reporting_controller.as_deref() == Some("latchkey-operator")
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Ok(events
            .iter()
            .filter(|event| about(event))
            .map(|event| (text(&event.reason), text(&event.note)))
            .collect())
    }

    async fn event(&self, reason: &str, note: &str) -> Result<(), TestError> {
        eventually(&format!("the event {reason} ({note})"), async || {
            let events = self.events().await?;
            let is_there = events.iter().any(|(found, said)| found == reason && said.contains(note));
            if is_there { Ok(()) } else { Err(format!("{events:?}").into()) }
        })
        .await
    }

    /// The first pod was ended so many times, and the others never.
    fn only_first_ended(&self, before: &BTreeMap<String, Running>, times: usize) {
        let ended = self.kubelet.ended();
        assert!(
            ended.len() == times && ended.iter().all(|ended| ended.pod == self.pod(PROXIES - 1)),
            "{ended:?}"
        );
        for name in (0..PROXIES - 1).map(|ordinal| self.pod(ordinal)) {
            assert_eq!(self.kubelet.pods().get(&name), before.get(&name), "it was left alone");
        }
    }

    /// How many tunnels the operator knows of, in all.
    async fn tunnels(&self) -> Result<u64, TestError> {
        let told = self.told().await?;
        let proxies = told["proxies"].as_array().cloned().unwrap_or_default();
        Ok(proxies.iter().filter_map(|proxy| proxy["tunnels"].as_u64()).sum())
    }
}

fn instance(name: &str) -> Value {
    json!({
        "kind": "RemoteInstance",
        "metadata": {"name": name},
        "spec": {
            "enabled": true,
            "hostname": name,
            "product": "roll-device",
            "access": {"maxConnections": 512, "newConnectionsPerMinutePerClient": 100_000},
        },
    })
}

#[expect(clippy::print_stderr, reason = "figures for whoever runs it")]
fn tell(what: &str, took: Duration, seen: &Seen) {
    let Seen { served, delayed, failed, failures } = seen;
    eprintln!(
        "roll::{what}: {took:.1?}; visitors: {served} served ({delayed} after a delay), {failed} failed {failures:?}"
    );
}

async fn replaced(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let mut world = World::start(namespace).await?;
        let visitors = world.visitors();
        let before = world.kubelet.pods();

        // Not in the template: nobody is restarted.
        let mut other = proxies(GOOD);
        other["roll"]["readyWithinSeconds"] = json!(30);
        other["service"] = json!({"annotations": {"example.com/a": "b"}});
        other["scrapersFrom"] = json!(["monitoring"]);
        world.here.keep_proxies(&other).await?;
        let service =
            format!("/api/v1/namespaces/{}/services/{}", namespace.name(), world.here.names.proxies());
        eventually("the annotation", async || {
            let service =
                namespace.control_plane().exchange(http::Method::GET, &service, &Value::Null).await?.body;
            let found = &service["metadata"]["annotations"]["example.com/a"];
            if found == "b" { Ok(()) } else { Err(service.to_string().into()) }
        })
        .await?;
        world.phase("Idle", "").await?;
        assert_eq!(world.kubelet.ended(), []);

        let began = Instant::now();
        other["image"] = json!(BETTER);
        world.here.keep_proxies(&other).await?;
        let after = world.ready_with(BETTER).await?;
        world.phase("Idle", "").await?;
        let took = began.elapsed();
        let ended = world.kubelet.ended();
        let order: Vec<&str> = ended.iter().map(|ended| ended.pod.as_str()).collect();
        assert_eq!(order, [world.pod(2), world.pod(1), world.pod(0)], "the highest number first");
        for ended in &ended {
            let others: BTreeSet<String> =
                before.keys().filter(|name| **name != ended.pod).cloned().collect();
            assert_eq!(
                (&ended.others, ended.image.as_str()),
                (&others, GOOD),
                "{} went too early",
                ended.pod
            );
        }
        assert!(after.values().all(|pod| pod.restarts == 0), "{after:?}");
        world.event("RollFinished", "").await?;
        assert_eq!(
            world.events().await?.iter().filter(|(reason, _)| reason == "ProxyReplaced").count(),
            PROXIES
        );
        eventually("every tunnel", async || match world.tunnels().await? {
            tunnels if tunnels == AGENTS as u64 => Ok(()),
            tunnels => Err(format!("{tunnels} tunnels").into()),
        })
        .await?;
        let seen = visitors.seen();
        tell("another_image", took, &seen);
        assert_eq!(seen.failed, 0, "{:?}", seen.failures);
        assert!(seen.served > 100, "{seen:?}");
        Ok(())
    };
    suite.control_plane().await?.in_namespace("rolled", test).await
}

async fn paused(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let mut world = World::start(namespace).await?;
        let visitors = world.visitors();
        let before = world.kubelet.pods();
        let first = world.pod(2);
        let began = Instant::now();

        // One that ends at once.
        world.here.keep_proxies(&proxies(BROKEN)).await?;
        let reason = world.phase("Paused", "CrashLoopBackOff").await?;
        assert!(reason.contains(&first), "{reason}");
        world.event("RollPaused", &reason).await?;
        assert_eq!(world.metric("roll_paused").await?, "1.0");
        assert_eq!(world.metric("roll_pauses_total").await?, "1");
        world.only_first_ended(&before, 1);
        world
            .says(0, &[], 3, &["roll: PAUSED: ", &reason, "  CrashLoopBackOff: ", "leader of term "])
            .await?;
        let house = format!("{}/house-0", namespace.name());
        world.says(0, &["--instance", &house], 0, &[&house, "yes"]).await?;
        // Nobody's business: keys, tokens and bundles are nowhere in it.
        let (_, document) = world.status(0, &["--all", "-o", "json"]).await?;
        for secret in ["PRIVATE KEY", "latchkey-join", "\"token", "\"seed"] {
            assert!(!document.contains(secret), "{secret}");
        }
        let lease = world.here.names.lease();
        let leader =
            ["get", "lease", &lease, "-n", namespace.name(), "-o", "jsonpath={.spec.holderIdentity}"];
        let leader = namespace.control_plane().kubectl(&leader).await?.stdout;
        assert!(leader.starts_with("operator-0_"), "as docs/installation.md finds the leader: {leader}");
        world.here.start_operator(1)?;
        world.here.operator_ready(1).await?;
        world.says(1, &[], 3, &["follower", "operator-0 leads and knows more"]).await?;
        tell("an_image_that_ends", began.elapsed(), &visitors.seen());

        // One that starts and finds no operator.
        let began = Instant::now();
        world.here.keep_proxies(&proxies(LOST)).await?;
        let reason = world.phase("Paused", "was not ready within 20 s").await?;
        assert!(reason.contains(&first), "{reason}");
        world.event("RollPaused", &reason).await?;
        assert_eq!(world.kubelet.pods()[&first].restarts, 0, "it is alive, and only not ready");
        world.only_first_ended(&before, 2);
        tell("an_image_that_is_never_ready", began.elapsed(), &visitors.seen());

        // Back: the next change as any other.
        let began = Instant::now();
        world.here.keep_proxies(&proxies(GOOD)).await?;
        world.ready_with(GOOD).await?;
        world.phase("Idle", "").await?;
        world.event("RollFinished", "").await?;
        assert_eq!(world.metric("roll_paused").await?, "0.0");
        let counted = format!("instances: {AGENTS}, ready {AGENTS}, connected {AGENTS}");
        world.says(0, &[], 0, &["roll: every proxy is as it shall be", &counted]).await?;
        world.only_first_ended(&before, 3);
        let seen = visitors.seen();
        tell("back", began.elapsed(), &seen);
        assert_eq!(seen.failed, 0, "{:?}", seen.failures);
        let pods = world.pods();
        for (instance, ..) in world.guests() {
            assert!(holder(&pods, &instance).await.is_some(), "{instance} has no tunnel");
        }
        Ok(())
    };
    suite.control_plane().await?.in_namespace("roll-paused", test).await
}
