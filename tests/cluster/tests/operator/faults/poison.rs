//! Objects that make no sense, or are as large as they can be: stored under a lax definition of the resources, before the
//! present one came. An installation serves all the while, and others are edited.

use std::time::{Duration, Instant};

use http::Method;
use latchkey_cluster_tests::{ControlPlane, Process, Suite, TestError, TestNamespace};
use resources::{AGENT_KEYS_ANNOTATION, API_VERSION};
use serde_json::{Value, json};

use super::{Guests, an_edit_arrives, host, recovers, seen, serve, tell};
use crate::support::{Installation, eventually};

/// Items of a list that is far too long.
const MANY: usize = 10_000;
/// A text as long as etcd takes with the object around it: 1.5 MiB are the most.
const LONG: usize = 1_300_000;
/// Levels of a list of lists: an API server takes 10,000, and `serde_json` reads 128.
const DEEP: usize = 300;
/// An edit beside all that, on a machine under load.
const SOON: Duration = Duration::from_secs(20);
/// How much larger an operator may become, in KiB: this is thirty times what the objects take.
const GROWTH: u64 = 150 * 1024;

/// The object with a member that nobody knows.
const UNKNOWN: &str = "unknown";

/// What is wrong with an object.
struct Poison {
    name: &'static str,
    object: Value,
    /// The reason of a condition that says what is wrong.
    reason: &'static str,
}

fn poison(installation: &str) -> Vec<Poison> {
    let spec = |name, reason, mut spec: Value| {
        spec["enabled"] = json!(true);
        spec["installation"] = json!(installation);
        Poison { name, object: json!({"spec": spec}), reason }
    };
    let nested = (0..DEEP).fold(json!(1), |inner, _| json!([inner]));
    let unknown = (0..DEEP).fold(json!(1), |inner, _| json!({"a": inner}));
    let domains: Vec<_> = (0..MANY).map(|number| format!("d{number}.example.com")).collect();
    let networks: Vec<_> =
        (0..8 * MANY).map(|number| format!("10.{}.{}.0/24", number / 256, number % 256)).collect();
    let mut keys = spec("keys", "InvalidAgentKey", json!({}));
    keys.object["metadata"] = json!({"annotations": {AGENT_KEYS_ANNOTATION: "nonsense ".repeat(20_000)}});
    vec![
        spec("number", "InvalidSpec", json!({"version": 2023.1})),
        spec("shape", "InvalidSpec", json!({"access": "everybody"})),
        spec("range", "InvalidSpec", json!({"access": {"maxConnections": -7}, "tunnels": 1e300})),
        spec("label", "InvalidSpec", json!({"hostname": "NOT A LABEL"})),
        spec("list", "InvalidSpec", json!({"customDomains": domains})),
        spec("networks", "InvalidSpec", json!({"access": {"allowNetworks": networks}})),
        spec("long", "InvalidSpec", json!({"hostname": "x".repeat(LONG)})),
        spec("nested", "InvalidSpec", json!({"hostname": nested})),
        spec("twin", "NameConflict", json!({"hostname": "lake-house"})),
        Poison { name: "text", object: json!({"spec": "nothing"}), reason: "InvalidSpec" },
        keys,
        spec(UNKNOWN, "InvalidSpec", json!({"noSuchMember": unknown})),
    ]
}

fn blocks() -> Vec<(&'static str, Value)> {
    let nested = (0..DEEP).fold(json!(1), |inner, _| json!([inner]));
    let ranges: Vec<_> = (0..MANY).map(|number| format!("<=1.{number}.0")).collect();
    vec![
        ("types", json!({"product": 7, "versions": "all", "reason": []})),
        ("many", json!({"product": "fault-device", "versions": ranges, "reason": "Too many"})),
        ("nested", json!({"product": "fault-device", "versions": nested, "reason": "Too deep"})),
        ("long", json!({"product": "fault-device", "versions": ["<=2099.1"], "reason": "x".repeat(LONG)})),
    ]
}

pub(super) async fn poisoned(_: Suite) -> Result<(), TestError> {
    // A control plane of its own: its definitions change.
    let control_plane = ControlPlane::start().await?;
    control_plane.install_definitions().await?;
    control_plane
        .in_namespace("poison", async |namespace| {
            let mut here = Installation::begin(namespace).await?;
            // It answers for what names no installation, and for blocks.
            here.write_settings(&json!({"default": true})).await?;
            here.start(1, 1).await?;
            serve(&mut here, "lake", 0).await?;
            let guests = Guests::at(&here, 0, &host("lake")).await?;
            let small = resident(&here.operators[&0].process)?;

            lax(&control_plane).await?;
            let mut poison = poison(&here.names.installation);
            let folder = format!("/apis/{API_VERSION}/namespaces/{}/remoteinstances", namespace.name());
            let count = poison.len() + blocks().len() + 1;
            for each in &poison {
                put(&control_plane, &folder, "RemoteInstance", each.name, &each.object).await?;
            }
            for (name, spec) in blocks() {
                let blocks = format!("/apis/{API_VERSION}/versionblocks");
                let name = namespace.cluster_wide(name);
                put(&control_plane, &blocks, "VersionBlock", &name, &json!({"spec": spec})).await?;
            }
            // That is taken out by the present definition, and may be seen before or after.
            poison.retain(|each| each.name != UNKNOWN);
            // A status that makes no sense, in an object that does.
            let odd = json!({"spec": {"enabled": false, "installation": here.names.installation}});
            put(&control_plane, &folder, "RemoteInstance", "status", &odd).await?;
            let status = json!({"status": {"conditions": "none", "hostnames": 7, "tunnel": {"connected": [[]]}}});
            let path = format!("{folder}/status/status");
            let answer = control_plane.exchange(Method::PATCH, &path, &status).await?;
            assert!(answer.is_success(), "{}", answer.message());
            let beside = an_edit_arrives(&here, 100).await?;

            strict(&control_plane, &folder).await?;
            let began = Instant::now();
            told(&here, namespace, &poison).await?;
            let (all_told, large) = (began.elapsed(), resident(&here.operators[&0].process)?);
            let edit = an_edit_arrives(&here, 200).await?;
            assert!(!here.restart_if_ended(0)?, "the operator stayed up");

            // One that begins with all that.
            let began = Instant::now();
            here.operators.get_mut(&0).ok_or("no operator")?.process.kill()?;
            here.start_operator(0)?;
            here.operator_ready(0).await?;
            recovers(&mut here, 300).await?;
            let recovered = began.elapsed();
            eventually("what the definition takes out is no complaint", async || {
                says(&lenient(&here, &here.instance_path(UNKNOWN)).await?, "Serving")
            })
            .await?;
            told(&here, namespace, &poison).await?;
            let again = resident(&here.operators[&0].process)?;
            let more = format!(
                "{} objects; an edit as soon as they are there {beside:.1?}, under the present definition {edit:.1?}; every \
                 complaint told {all_told:.1?} after that; operator: {} MiB before, {} with them, {} after a new start; {}",
                count,
                small / 1024,
                large / 1024,
                again / 1024,
                seen(&guests)
            );
            tell("poisoned_objects", recovered, &more);
            assert!(beside < SOON && edit < SOON, "edits of others were late");
            assert!(large < small + GROWTH && again < small + GROWTH, "an operator grew too much");
            guests.noticed_nothing()
        })
        .await
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Lets anything pass.
async fn lax(control_plane: &ControlPlane) -> Result<(), TestError> {
    for plural in ["remoteinstances", "versionblocks"] {
        let path = format!("{DEFINITIONS}/{plural}.latchkey.dev");
        eventually("a lax definition", async || {
            let mut definition = control_plane.exchange(Method::GET, &path, &Value::Null).await?.body;
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            definition["metadata"]["managedFields"] = json!([]);
            let answer = control_plane.exchange(Method::PUT, &path, &definition).await?;
            if answer.is_success() { Ok(()) } else { Err(answer.message().to_owned().into()) }
        })
        .await?;
    }
    Ok(())
}

/// The present definitions again. They are served when they refuse what they should.
async fn strict(control_plane: &ControlPlane, folder: &str) -> Result<(), TestError> {
    control_plane.install_definitions().await?;
    let blocks = format!("/apis/{API_VERSION}/versionblocks");
    for (kind, folder, spec) in [
        ("RemoteInstance", folder, json!({"hostname": "NOT A LABEL"})),
        ("VersionBlock", &blocks, json!({"versions": 7})),
    ] {
        let probe =
            json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "probe"}, "spec": spec});
        let path = format!("{folder}?dryRun=All");
        eventually("the rules are back", async || {
            let answer = control_plane.exchange(Method::POST, &path, &probe).await?;
            if answer.is_success() { Err("it was taken".into()) } else { Ok(()) }
        })
        .await?;
    }
    Ok(())
}

/// Makes an object. The lax definition is served a moment after it was written.
async fn put(
    control_plane: &ControlPlane,
    folder: &str,
    kind: &str,
    name: &str,
    object: &Value,
) -> Result<(), TestError> {
    let mut object = object.clone();
    object["apiVersion"] = json!(API_VERSION);
    object["kind"] = json!(kind);
    object["metadata"]["name"] = json!(name);
    eventually(name, async || {
        let answer = control_plane.exchange(Method::POST, folder, &object).await?;
        let message = answer.message().chars().take(300).collect::<String>();
        if answer.is_success() { Ok(()) } else { Err(message.into()) }
    })
    .await
}

/// Has it a condition with this reason?
fn says(object: &Value, reason: &str) -> Result<(), TestError> {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|each| each["reason"] == reason) {
        return Ok(());
    }
    Err(format!("no {reason} in {conditions:?}").into())
}

/// Every object says what is wrong with it.
async fn told(
    here: &Installation<'_, '_>,
    namespace: &TestNamespace<'_>,
    poison: &[Poison],
) -> Result<(), TestError> {
    for Poison { name, reason, .. } in poison {
        eventually(&format!("{name} is told what is wrong"), async || {
            says(&lenient(here, &here.instance_path(name)).await?, reason)
        })
        .await?;
    }
    for (name, _) in blocks() {
        let path = format!("/apis/{API_VERSION}/versionblocks/{}", namespace.cluster_wide(name));
        eventually(&format!("block {name} is told what is wrong"), async || {
            says(&lenient(here, &path).await?, "InvalidSpec")
        })
        .await?;
    }
    // The one whose status made no sense has one again.
    eventually("a status in place of nonsense", async || says(&here.instance("status").await?, "Disabled"))
        .await
}

/// An object whose spec may be nested deeper than anybody reads: only its status is asked for.
async fn lenient(here: &Installation<'_, '_>, path: &str) -> Result<Value, TestError> {
    let control_plane = here.namespace.control_plane();
    let answer = control_plane.exchange(Method::GET, path, &Value::Null).await?;
    if answer.body.is_object() {
        return Ok(answer.body);
    }
    // It could not be read as JSON: kubectl reads it.
    let mut words: Vec<&str> = path.rsplit('/').take(2).collect();
    words.reverse();
    let namespace = here.namespace.name();
    let arguments = ["get", words[0], words[1], "-n", namespace, "-o", "jsonpath={.status}"];
    let output = control_plane.kubectl(&arguments).await?;
    Ok(json!({"status": serde_json::from_str::<Value>(&output.stdout).unwrap_or_default()}))
}

/// What a process takes, in KiB.
fn resident(process: &Process) -> Result<u64, TestError> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
