//! Agents that join by a bundle, on a real API server: with no more rights than the operator has.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use latchkey_cluster_tests::{Suite, TestError, TestNamespace};
use latchkey_operator::joining::{
    BUNDLE_KEY, JOIN_ANNOTATION, JOIN_TOKENS_ANNOTATION, Joining, Settings, Way, secret_name,
};
use latchkey_operator::names::{INSTALLATION_LABEL, Names};
use latchkey_operator::publish::{Enrolments, Refusal, RefusalKind};
use libtest_mimic::Trial;
use planner::Seed;
use resources::{AGENT_KEYS_ANNOTATION, Observed};
use route_table::{Fingerprint, InstanceId};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::support::Account;

const WITHIN: Duration = Duration::from_secs(20);
const LIFE: Duration = Settings::TOKEN_LIFE;

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("joining::a_request_becomes_a_bundle", |suite| {
            run(suite, LIFE, async |world| a_request_becomes_a_bundle(world).await)
        }),
        suite.test("joining::a_token_lets_in_one_agent", |suite| {
            run(suite, LIFE, async |world| a_token_lets_in_one_agent(world).await)
        }),
        suite.test("joining::nobody_is_too_early", |suite| {
            run(suite, LIFE, async |world| nobody_is_too_early(world).await)
        }),
        suite.test("joining::a_reusable_token_lets_in_several", |suite| {
            run(suite, LIFE, async |world| a_reusable_token_lets_in_several(world).await)
        }),
        suite.test("joining::of_many_at_once_one_wins", |suite| {
            run(suite, LIFE, async |world| of_many_at_once_one_wins(world).await)
        }),
        suite.test("joining::there_is_room_for_sixty_four_keys", |suite| {
            run(suite, LIFE, async |world| there_is_room_for_sixty_four_keys(world).await)
        }),
        suite.test("joining::a_token_expires_and_a_reusable_one_is_replaced", |suite| {
            run(suite, Duration::from_secs(4), async |world| a_token_expires(world).await)
        }),
        suite.test("joining::a_secret_that_is_there_stays", |suite| {
            run(suite, LIFE, async |world| a_secret_that_is_there_stays(world).await)
        }),
        suite.test("joining::the_page_says_what_works", |suite| {
            run(suite, LIFE, async |world| the_page_says_what_works(world).await)
        }),
        suite.test("joining::other_requests_are_complained_of", |suite| {
            run(suite, LIFE, async |world| other_requests_are_complained_of(world).await)
        }),
    ]
}

/// An installation in a namespace of its own.
struct World<'a> {
    namespace: &'a TestNamespace<'a>,
    admin: Client,
    planning: Arc<planner::Settings>,
    joining: Arc<Joining>,
}

async fn run<T>(suite: Suite, token_life: Duration, test: T) -> Result<(), TestError>
where
    T: AsyncFnOnce(&World<'_>) -> Result<(), TestError>,
{
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("joining", async |namespace| {
            let admin = control_plane.client();
            let names = Names { namespace: namespace.name().to_owned(), installation: "default".to_owned() };
            let operator = restricted(namespace, &names).await?;
            let way = Way {
                server: "tunnel.example.com:443".to_owned(),
                server_name: "connect.example.com".to_owned(),
            };
            let (_, way) = watch::channel(Arc::new(way));
            let (_, ca) = watch::channel(Arc::from("PEM OF THE CA\n"));
            let settings = Settings { way, ca, token_life };
            let joining = Joining::start(operator, &names, "tests", settings);
            let spec = serde_json::from_value(json!({"domain": "ui.example.com", "default": true}))?;
            let planning = planner::Settings { name: "default".to_owned(), spec, seed: Seed::new([7; 32]) };
            test(&World { namespace, admin, planning: Arc::new(planning), joining }).await
        })
        .await
}

/// A client that may do what the operator may: no Secret of somebody else can be read or listed.
async fn restricted(namespace: &TestNamespace<'_>, names: &Names) -> Result<Client, TestError> {
    let client = Account::make(namespace, names).await?.client().await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace.name());
    assert!(secrets.list(&ListParams::default()).await.is_err(), "the test tests nothing");
    assert!(secrets.get("any").await.unwrap_err().to_string().contains("forbidden"));
    Ok(client)
}

fn key(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

impl World<'_> {
    fn instances(&self) -> Api<DynamicObject> {
        let kind =
            ApiResource::from_gvk(&GroupVersionKind::gvk("latchkey.dev", "v1alpha1", "RemoteInstance"));
        Api::namespaced_with(self.admin.clone(), self.namespace.name(), &kind)
    }

    fn id(&self, name: &str) -> InstanceId {
        format!("{}/{name}", self.namespace.name()).parse().unwrap()
    }

    async fn make(&self, name: &str, annotations: Value) -> Result<(), TestError> {
        let object = serde_json::from_value(json!({
            "apiVersion": "latchkey.dev/v1alpha1",
            "kind": "RemoteInstance",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"enabled": true},
        }))?;
        self.instances().create(&PostParams::default(), &object).await?;
        self.consider().await
    }

    async fn annotate(&self, name: &str, annotations: Value) -> Result<(), TestError> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        self.instances().patch(name, &PatchParams::default(), &patch).await?;
        self.consider().await
    }

    /// As the operator does whenever objects have changed.
    async fn consider(&self) -> Result<(), TestError> {
        let mut instances = OrdMap::new();
        for object in self.instances().list(&ListParams::default()).await? {
            let id = self.id(&object.name_any());
            instances.insert(id, Arc::new(Observed::read(serde_json::to_value(object)?)?));
        }
        self.joining.consider(&self.planning, &instances);
        Ok(())
    }

    async fn annotation(&self, name: &str, annotation: &str) -> Result<Option<String>, TestError> {
        Ok(self.instances().get(name).await?.annotations().get(annotation).cloned())
    }

    /// Waits until an annotation is as it should be.
    async fn until(
        &self,
        name: &str,
        annotation: &str,
        fits: impl Fn(Option<&str>) -> bool,
    ) -> Result<(), TestError> {
        let until = Instant::now() + WITHIN;
        loop {
            let found = self.annotation(name, annotation).await?;
            if fits(found.as_deref()) {
                return self.consider().await;
            }
            assert!(Instant::now() < until, "{annotation} of {name} is {found:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn secret(&self, name: &str) -> Result<Secret, TestError> {
        let secrets: Api<Secret> = Api::namespaced(self.admin.clone(), self.namespace.name());
        Ok(secrets.get(&secret_name(&self.id(name))).await?)
    }

    async fn delete_secret(&self, name: &str) -> Result<(), TestError> {
        let secrets: Api<Secret> = Api::namespaced(self.admin.clone(), self.namespace.name());
        secrets.delete(&secret_name(&self.id(name)), &DeleteParams::default()).await?;
        Ok(())
    }

    async fn token(&self, name: &str) -> Result<String, TestError> {
        let secret = self.secret(name).await?;
        let bundle: Value = serde_json::from_slice(&secret.data.unwrap()[BUNDLE_KEY].0)?;
        Ok(bundle["joinToken"].as_str().unwrap().to_owned())
    }

    /// Makes an instance with a bundle; its token.
    async fn with_bundle(&self, name: &str, request: &str) -> Result<String, TestError> {
        self.make(name, json!({JOIN_ANNOTATION: request})).await?;
        self.until(name, JOIN_TOKENS_ANNOTATION, |tokens| tokens.is_some()).await?;
        self.token(name).await
    }

    async fn enrol(&self, token: &str, key: Fingerprint) -> Result<InstanceId, Refusal> {
        self.joining.enrol(Zeroizing::new(token.to_owned()), key).await
    }

    async fn keys(&self, name: &str) -> Result<String, TestError> {
        Ok(self.annotation(name, AGENT_KEYS_ANNOTATION).await?.unwrap_or_default())
    }

    async fn events(&self) -> Result<String, TestError> {
        let output = self.namespace.control_plane();
        let events = output.kubectl(&["get", "events", "-n", self.namespace.name(), "-o", "json"]).await?;
        Ok(events.stdout)
    }

    async fn until_told(&self, part: &str) -> Result<String, TestError> {
        let waiting = async {
            loop {
                let events = self.events().await?;
                if events.contains(part) {
                    return Ok(events);
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(WITHIN, waiting).await.map_err(|_| format!("no event says {part:?}"))?
    }
}

fn kind(refused: &Result<InstanceId, Refusal>) -> Option<RefusalKind> {
    refused.as_ref().err().map(|refusal| refusal.kind)
}

async fn a_request_becomes_a_bundle(world: &World<'_>) -> Result<(), TestError> {
    world.make("quiet", json!({})).await?;
    let token = world.with_bundle("lake", "once").await?;
    let object = world.instances().get("lake").await?;
    assert_eq!(object.annotations().get(JOIN_ANNOTATION), None, "the request is answered");
    let secret = world.secret("lake").await?;
    let owner = &secret.owner_references()[0];
    assert_eq!((owner.kind.as_str(), Some(&owner.uid)), ("RemoteInstance", object.metadata.uid.as_ref()));
    assert_eq!(secret.labels().get(INSTALLATION_LABEL).map(String::as_str), Some("default"));
    let bundle: Value = serde_json::from_slice(&secret.data.unwrap()[BUNDLE_KEY].0)?;
    let expected = json!({
        "server": "tunnel.example.com:443",
        "serverName": "connect.example.com",
        "ca": "PEM OF THE CA\n",
        "instance": world.id("lake").as_str(),
        "joinToken": token,
    });
    assert_eq!(bundle, expected);

    // The token stands in the Secret and nowhere else.
    let random = token.trim_start_matches("lkjoin_").split('.').next().unwrap().to_owned();
    let events = world.until_told("JoinBundleReady").await?;
    for text in [serde_json::to_string(&object)?, events] {
        assert!(!text.contains(&random), "{text}");
    }
    let secrets: Api<Secret> = Api::namespaced(world.admin.clone(), world.namespace.name());
    assert_eq!(secrets.list(&ListParams::default()).await?.items.len(), 1, "nobody else asked");

    // Asked again while nobody has used it: it is still the answer.
    world.annotate("lake", json!({JOIN_ANNOTATION: "once"})).await?;
    world.until("lake", JOIN_ANNOTATION, |request| request.is_none()).await?;
    assert_eq!(world.token("lake").await?, token);
    // Lost: without its hash it is void, and the next one takes its place.
    world.delete_secret("lake").await?;
    world.annotate("lake", json!({JOIN_ANNOTATION: "once", JOIN_TOKENS_ANNOTATION: null})).await?;
    world.until("lake", JOIN_TOKENS_ANNOTATION, |tokens| tokens.is_some()).await?;
    let next = world.token("lake").await?;
    assert_ne!(next, token);
    assert_eq!(kind(&world.enrol(&token, key(1)).await), Some(RefusalKind::Token));
    assert_eq!(world.enrol(&next, key(1)).await, Ok(world.id("lake")));
    Ok(())
}

async fn a_token_lets_in_one_agent(world: &World<'_>) -> Result<(), TestError> {
    let token = world.with_bundle("lake", "once").await?;
    // One that looks right, and one that says it is for another instance.
    world.make("hill", json!({})).await?;
    let (random, for_lake) = token.split_once('.').unwrap();
    let made_up = format!("lkjoin_{}.{for_lake}", "A".repeat(43));
    let redirected = format!("{random}.{}", "x");
    for wrong in [made_up.as_str(), redirected.as_str(), "", "nonsense"] {
        assert_eq!(kind(&world.enrol(wrong, key(1)).await), Some(RefusalKind::Token), "{wrong}");
    }
    // Hashes that were copied to another instance open nothing there.
    let copied = world.annotation("lake", JOIN_TOKENS_ANNOTATION).await?;
    world.annotate("hill", json!({JOIN_TOKENS_ANNOTATION: copied})).await?;

    assert_eq!(world.enrol(&token, key(1)).await, Ok(world.id("lake")));
    assert_eq!(world.keys("lake").await?, key(1).to_string());
    assert_eq!(world.keys("hill").await?, "");
    world.consider().await?;
    assert_eq!(world.enrol(&token, key(1)).await, Ok(world.id("lake")), "it did not hear the answer");
    assert_eq!(kind(&world.enrol(&token, key(2)).await), Some(RefusalKind::Token));
    assert_eq!(world.keys("lake").await?, key(1).to_string());
    world.until_told("AgentJoined").await?;

    // Removed: it stays out, whatever it still has.
    world.annotate("lake", json!({AGENT_KEYS_ANNOTATION: null})).await?;
    assert_eq!(kind(&world.enrol(&token, key(1)).await), Some(RefusalKind::Token));
    assert_eq!(world.keys("lake").await?, "");
    Ok(())
}

/// The Secret is there a moment before its token is known. An agent that is refused then would never ask again.
async fn nobody_is_too_early(world: &World<'_>) -> Result<(), TestError> {
    let mut early = 0;
    for number in 0..8 {
        let name = format!("house-{number}");
        world.make(&name, json!({JOIN_ANNOTATION: "once"})).await?;
        let until = Instant::now() + WITHIN;
        let token = loop {
            match world.token(&name).await {
                Ok(token) => break token,
                Err(error) => assert!(Instant::now() < until, "no Secret: {error}"),
            }
        };
        loop {
            let answer = world.enrol(&token, key(number)).await;
            match kind(&answer) {
                None => break,
                Some(RefusalKind::Unavailable) => early += 1,
                Some(_) => panic!("refused for good: {answer:?}"),
            }
            assert!(Instant::now() < until, "{answer:?}");
        }
    }
    assert!(early > 0, "nobody came early: the test tests nothing");
    Ok(())
}

async fn a_reusable_token_lets_in_several(world: &World<'_>) -> Result<(), TestError> {
    let token = world.with_bundle("lake", "reusable").await?;
    assert_eq!(world.annotation("lake", JOIN_ANNOTATION).await?.as_deref(), Some("reusable"));
    for byte in [1, 2, 1] {
        assert_eq!(world.enrol(&token, key(byte)).await, Ok(world.id("lake")));
    }
    world.consider().await?;
    assert_eq!(world.keys("lake").await?, format!("{},{}", key(1), key(2)));
    assert_eq!(world.token("lake").await?, token, "one is enough");
    Ok(())
}

async fn of_many_at_once_one_wins(world: &World<'_>) -> Result<(), TestError> {
    let token = world.with_bundle("lake", "once").await?;
    let tries = (1..=8).map(|byte| world.enrol(&token, key(byte)));
    let answers = futures_util::future::join_all(tries).await;
    let winners: Vec<usize> = (0..8).filter(|index| answers[*index].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    assert_eq!(world.keys("lake").await?, key(u8::try_from(winners[0] + 1)?).to_string());
    Ok(())
}

async fn there_is_room_for_sixty_four_keys(world: &World<'_>) -> Result<(), TestError> {
    let token = world.with_bundle("lake", "reusable").await?;
    let keys: Vec<String> = (1..=63).map(|byte| key(byte).to_string()).collect();
    world.annotate("lake", json!({AGENT_KEYS_ANNOTATION: keys.join(",")})).await?;
    assert!(world.enrol(&token, key(64)).await.is_ok());
    let refused = world.enrol(&token, key(65)).await;
    assert_eq!(kind(&refused), Some(RefusalKind::Conflict), "{refused:?}");
    assert!(refused.unwrap_err().detail.contains("64"));
    assert_eq!(world.keys("lake").await?.split(',').count(), 64);
    Ok(())
}

async fn a_token_expires(world: &World<'_>) -> Result<(), TestError> {
    let lake = world.with_bundle("lake", "once").await?;
    let hill = world.with_bundle("hill", "reusable").await?;
    // Fetched and deleted: the next one comes by itself, before the first is void.
    world.delete_secret("hill").await?;
    world
        .until("hill", JOIN_TOKENS_ANNOTATION, |tokens| {
            tokens.is_some_and(|tokens| tokens.matches("sha256").count() == 2)
        })
        .await?;
    let next = world.token("hill").await?;
    assert_ne!(next, hill);
    assert!(world.enrol(&next, key(1)).await.is_ok());
    let until = Instant::now() + WITHIN;
    while world.enrol(&hill, key(2)).await.is_ok() {
        assert!(Instant::now() < until, "it does not expire");
        sleep(Duration::from_millis(50)).await;
    }
    let refused = world.enrol(&lake, key(3)).await;
    assert_eq!(kind(&refused), Some(RefusalKind::Token), "{refused:?}");
    assert_eq!(world.keys("lake").await?, "");
    Ok(())
}

async fn a_secret_that_is_there_stays(world: &World<'_>) -> Result<(), TestError> {
    let secrets: Api<Secret> = Api::namespaced(world.admin.clone(), world.namespace.name());
    let theirs: Secret =
        serde_json::from_value(json!({"metadata": {"name": "lake-join"}, "stringData": {"password": "x"}}))?;
    secrets.create(&PostParams::default(), &theirs).await?;
    world.make("lake", json!({JOIN_ANNOTATION: "once"})).await?;
    let events = world.until_told("JoinBundleFailed").await?;
    assert!(events.contains("delete it, and the bundle takes its place"), "{events}");
    let found = world.secret("lake").await?;
    assert!(found.data.unwrap().keys().eq(["password"]) && found.metadata.owner_references.is_none());
    assert_eq!(world.annotation("lake", JOIN_TOKENS_ANNOTATION).await?, None);

    // Out of the way, and the request is answered.
    world.delete_secret("lake").await?;
    world.until("lake", JOIN_TOKENS_ANNOTATION, |tokens| tokens.is_some()).await?;
    let token = world.token("lake").await?;
    assert!(world.enrol(&token, key(1)).await.is_ok());
    Ok(())
}

async fn other_requests_are_complained_of(world: &World<'_>) -> Result<(), TestError> {
    world.make("lake", json!({JOIN_ANNOTATION: "yes please"})).await?;
    let events = world.until_told("JoinRequestUnknown").await?;
    assert!(events.contains("yes please") && events.contains("reusable"), "{events}");
    // Another installation's are not ours to answer.
    let mut object: DynamicObject = world.instances().get("lake").await?;
    object.metadata = kube::core::ObjectMeta { name: Some("hill".to_owned()), ..Default::default() };
    object.metadata.annotations = Some([(JOIN_ANNOTATION.to_owned(), "once".to_owned())].into());
    object.data["spec"]["installation"] = json!("other");
    world.instances().create(&PostParams::default(), &object).await?;
    world.consider().await?;
    // Mended, it is answered; by then the other one would have been, too.
    world.annotate("lake", json!({JOIN_ANNOTATION: "once"})).await?;
    world.until("lake", JOIN_TOKENS_ANNOTATION, |tokens| tokens.is_some()).await?;
    assert_eq!(world.annotation("hill", JOIN_TOKENS_ANNOTATION).await?, None);
    assert_eq!(world.annotation("hill", JOIN_ANNOTATION).await?.as_deref(), Some("once"));
    Ok(())
}

/// Every command of docs/joining.md, in its order.
async fn the_page_says_what_works(world: &World<'_>) -> Result<(), TestError> {
    let page = include_str!("../../../../docs/joining.md");
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let folder = tempfile::tempdir()?;
    world.make("lake-house", json!({})).await?;
    let (control_plane, namespace) = (world.namespace.control_plane(), world.namespace.name());
    let operator = async {
        loop {
            world.consider().await.unwrap();
            sleep(Duration::from_millis(50)).await;
        }
    };
    let reader = async {
        let mut said = Vec::new();
        for line in blocks.flat_map(str::lines) {
            let output = control_plane
                .shell(&line.replace("-n homes", &format!("-n {namespace}")), folder.path())
                .await?;
            assert!(output.success, "{line}: {}", output.stderr);
            if line.contains("lake-house.json") {
                let bundle: Value =
                    serde_json::from_slice(&std::fs::read(folder.path().join("lake-house.json"))?)?;
                world.enrol(bundle["joinToken"].as_str().unwrap(), key(1)).await?;
            }
            said.push((line, output.stdout));
        }
        Ok::<_, TestError>(said)
    };
    let said = tokio::select! {
        said = timeout(Duration::from_mins(2), reader) => said??,
        () = operator => return Err("the operator ended".into()),
    };
    let said = |part: &str| {
        said.iter().find(|(line, _)| line.contains(part)).map(|(_, said)| said.as_str()).unwrap()
    };
    assert_eq!(said("agent-keys}"), key(1).to_string());
    assert!(said("get events").contains("AgentJoined") && said("get events").contains("JoinBundleReady"));
    assert_eq!(world.keys("lake-house").await?, "");
    Ok(())
}
