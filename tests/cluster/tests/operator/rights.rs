//! Least privilege, from the API server's own books: a whole installation lives through everything that an operator does,
//! and the audit log says what it asked for. Nothing is refused, and nothing is given that is never asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use latchkey_cluster_tests::{Asked, ControlPlane, Suite, TestError, TestNamespace};
use latchkey_operator::keys::{Keys, Lives};
use latchkey_operator::reconcile::now;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::pretend_kubelet::PretendKubelet;
use crate::support::{DOMAIN, Installation, Right, eventually, manifest, restrict, rights};

/// After this time every secret but the seed is due for a change.
const SECRETS_ARE_DUE: i64 = 340 * 24 * 3_600;
/// A pod on a lost node is deleted after a minute; a machine under load takes longer.
const LOST_WITHIN: Duration = Duration::from_mins(3);
/// What is needed where an API server does not stream lists, which came with Kubernetes 1.32 and can be switched off.
const WITHOUT_STREAMED_LISTS: [(&str, &str); 1] = [("pods", "list")];

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![suite.test("rights::every_one_is_used_and_none_is_missing", used)]
}

async fn used(_: Suite) -> Result<(), TestError> {
    // Its own: only then are its books kept, and its blocks nobody else's.
    let control_plane = ControlPlane::start_audited().await?;
    control_plane.install_definitions().await?;
    control_plane.start_controllers().await?;
    control_plane
        .in_namespace("rights", async |namespace| {
            restrict(namespace).await?;
            let mut here = Installation::begin(namespace).await?;
            live(&mut here).await?;
            let given = rights(&manifest(namespace, &here.names)?);
            judge(&given, &control_plane.asked(&here.account.user)?, namespace.name());
            Ok(())
        })
        .await
}

/// Everything was allowed, and everything that is allowed was asked for.
fn judge(given: &BTreeSet<Right>, asked: &[Asked], namespace: &str) {
    let refused: BTreeSet<_> = asked.iter().filter(|asked| [401, 403].contains(&asked.code)).collect();
    assert!(refused.is_empty(), "rights are missing: {refused:#?}");
    let elsewhere = |right: &Right| WITHOUT_STREAMED_LISTS.contains(&(&right[2], &right[4]));
    let is_used = |right: &Right| asked.iter().any(|asked| is_for(right, asked, namespace));
    let needless: Vec<_> = given.iter().filter(|right| !elsewhere(right) && !is_used(right)).collect();
    assert!(needless.is_empty(), "rights that nothing asked for: {needless:#?}");
}

/// Is it the right that let this request through?
fn is_for(right: &Right, asked: &Asked, namespace: &str) -> bool {
    let [place, group, resource, name, verb] = right;
    // An apply that makes an object needs both.
    let same_verb = asked.verb == *verb || (verb == "create" && asked.verb == "patch" && asked.code == 201);
    same_verb
        && asked.group == *group
        && asked.resource == *resource
        && (name == "-" || asked.name == *name)
        && (place == "cluster" || asked.namespace == namespace)
}

/// What an operator does in a year.
async fn live(here: &mut Installation<'_, '_>) -> Result<(), TestError> {
    let namespace = here.namespace;
    let kubelet = PretendKubelet::start(&namespace.control_plane().client(), namespace.name());
    here.keeps_workload = true;
    settings(here, "latchkey-proxy:1").await?;
    for which in 0..2 {
        here.start_operator(which)?;
        here.operator_ready(which).await?;
    }
    // Nobody runs the pods; these are their programs, under their names.
    for which in 0..3 {
        here.start_proxy(which).await?;
        here.proxy_ready(which).await?;
    }
    eventually("three ready pods", async || all_ready(namespace, "latchkey-proxy:1").await).await?;
    let lost = Lost::of(namespace, &format!("{}-1", here.names.proxies())).await?;
    kubelet.lose(&lost.node).await?;

    an_instance(here).await?;
    a_block(here).await?;
    lost.is_replaced(namespace).await?;

    settings(here, "latchkey-proxy:2").await?;
    eventually("every pod is replaced", async || all_ready(namespace, "latchkey-proxy:2").await).await?;
    // The next one takes over, and reads what the first one wrote.
    here.operators.get_mut(&0).ok_or("no operator")?.process.kill()?;
    here.apply(&instance("lake", 7)).await?;
    here.condition("lake", "Programmed", "True").await?;
    here.operators.clear();
    a_year(here).await
}

async fn settings(here: &Installation<'_, '_>, image: &str) -> Result<(), TestError> {
    here.write_all_settings(&json!({"default": true}), &json!({"image": image, "replicas": 3})).await
}

fn instance(name: &str, connections: u32) -> Value {
    json!({
        "kind": "RemoteInstance",
        "metadata": {"name": name},
        "spec": {
            "enabled": true, "hostname": name, "product": "rights-device",
            "access": {"maxConnections": connections},
        },
    })
}

/// It is asked for, joined and visited; others give their labels up, which are kept for a while.
async fn an_instance(here: &mut Installation<'_, '_>) -> Result<(), TestError> {
    here.apply(&instance("lake", 1)).await?;
    here.condition("lake", "Ready", "True").await?;
    here.start_agent("lake", "2021.1.3").await?;
    here.condition("lake", "Connected", "True").await?;
    let host = format!("lake.{DOMAIN}");
    eventually("the page", async || here.page(0, &host).await).await?;
    let path = format!("/api/v1/namespaces/{}/configmaps/{}", here.namespace.name(), here.names.released());
    for name in ["hut", "cabin"] {
        here.apply(&instance(name, 1)).await?;
        here.condition(name, "Programmed", "True").await?;
        let control_plane = here.namespace.control_plane();
        control_plane.exchange(Method::DELETE, &here.instance_path(name), &json!({})).await?;
        eventually("the label is kept", async || {
            let kept = control_plane.exchange(Method::GET, &path, &Value::Null).await?.body;
            if kept["data"].to_string().contains(name) { Ok(()) } else { Err(kept.to_string().into()) }
        })
        .await?;
    }
    Ok(())
}

/// It blocks, is gone, and blocks again: the second time it is the same event, counted.
async fn a_block(here: &Installation<'_, '_>) -> Result<(), TestError> {
    let name = here.namespace.cluster_wide("old");
    let path = format!("/apis/{}/versionblocks/{name}", resources::API_VERSION);
    let block = json!({
        "kind": "VersionBlock",
        "metadata": {"name": name},
        "spec": {"product": "rights-device", "versions": ["<=2021.1.4"], "reason": "Directory traversal"},
    });
    here.apply(&block).await?;
    here.condition("lake", "VersionAllowed", "False").await?;
    here.namespace.control_plane().exchange(Method::DELETE, &path, &json!({})).await?;
    here.condition("lake", "VersionAllowed", "True").await?;
    here.apply(&block).await?;
    here.condition("lake", "VersionAllowed", "False").await?;
    eventually("the block's status", async || {
        let block = here.namespace.control_plane().exchange(Method::GET, &path, &Value::Null).await?;
        if block.body["status"]["blocked"] == 1 {
            Ok(())
        } else {
            Err(block.body["status"].to_string().into())
        }
    })
    .await
}

/// A pod on a node that fell silent.
struct Lost {
    pod: String,
    uid: String,
    node: String,
}

impl Lost {
    async fn of(namespace: &TestNamespace<'_>, pod: &str) -> Result<Self, TestError> {
        let found: Pod = pods(namespace).get(pod).await?;
        let node = found.spec.and_then(|spec| spec.node_name).ok_or("no node")?;
        Ok(Self { pod: pod.to_owned(), uid: found.metadata.uid.ok_or("no uid")?, node })
    }

    async fn is_replaced(&self, namespace: &TestNamespace<'_>) -> Result<(), TestError> {
        let until = Instant::now() + LOST_WITHIN;
        while pods(namespace)
            .get_opt(&self.pod)
            .await?
            .is_none_or(|pod| pod.metadata.uid.as_ref() == Some(&self.uid))
        {
            assert!(Instant::now() < until, "the pod on the lost node is still there");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

fn pods(namespace: &TestNamespace<'_>) -> Api<Pod> {
    Api::namespaced(namespace.control_plane().client(), namespace.name())
}

async fn all_ready(namespace: &TestNamespace<'_>, image: &str) -> Result<(), TestError> {
    let pods = pods(namespace).list(&ListParams::default()).await?.items;
    let ready = pods.iter().filter(|pod| {
        let runs =
            pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.as_deref()) == Some(image);
        let conditions =
            pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        runs && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    let ready = ready.count();
    if ready == 3 { Ok(()) } else { Err(format!("{ready} of {}", pods.len()).into()) }
}

/// What only time brings, by the part that does it.
async fn a_year(here: &Installation<'_, '_>) -> Result<(), TestError> {
    let (client, names) = (here.account.client().await?, here.names.clone());
    let host = format!("connect.{DOMAIN}").parse()?;
    let keys = Keys::ensure(client, names, Lives::default(), Some(&host), now()).await?;
    keys.rotate(Some(&host), now().plus_seconds(SECRETS_ARE_DUE)).await?;
    Ok(())
}
