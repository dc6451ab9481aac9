//! What `kubectl get` shows, and statuses: written beside the spec, by server-side apply.

use http::Method;
use latchkey_cluster_tests::{Suite, TestError, TestNamespace};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::changes::create;

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("columns::instances", instances),
        suite.test("columns::blocks", blocks),
        suite.test("columns::both_by_category", both_by_category),
        suite.test("columns::kubectl_waits_for_ready", kubectl_waits),
        suite.test("status::leaves_the_spec_alone", leaves_the_spec_alone),
        suite.test("status::belongs_to_one_writer", belongs_to_one_writer),
        suite.test("status::is_not_changed_by_a_write_of_the_spec", spec_leaves_status_alone),
    ]
}

fn instance_status() -> Value {
    json!({
        "observedGeneration": 1,
        "url": "https://lake-house.ui.example.com",
        "hostnames": [{"name": "lake-house.ui.example.com", "kind": "Assigned", "state": "Serving"}],
        "version": {"effective": "2020.12.1", "source": "Reported"},
        "blockedBy": ["core-2021-1-4"],
        "tunnel": {"connected": true, "since": "2026-11-21T09:00:00Z", "agentVersion": "0.1.0", "protocolVersion": 2},
        "conditions": [condition("Ready", "False", "Blocked", "core-2021-1-4: Directory traversal")],
    })
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-21T09:00:00Z", "observedGeneration": 1,
    })
}

/// As the operator writes it: server-side apply on the status, a body that names itself.
async fn write_status(
    namespace: &TestNamespace<'_>,
    kind: &str,
    path: &str,
    status: &Value,
    manager: &str,
) -> Result<Value, TestError> {
    let body = json!({"apiVersion": resources::API_VERSION, "kind": kind, "status": status});
    let path = format!("{path}/status?fieldManager={manager}&force=true&fieldValidation=Strict");
    let answer = namespace.control_plane().exchange(Method::PATCH, &path, &body).await?;
    assert!(answer.is_success(), "{}", answer.message());
    assert_eq!(answer.warnings, Vec::<String>::new());
    Ok(answer.body)
}

async fn get(namespace: &TestNamespace<'_>, arguments: &[&str]) -> Result<Vec<Vec<String>>, TestError> {
    let arguments = [&["get", "-n", namespace.name()], arguments].concat();
    let output = namespace.control_plane().kubectl(&arguments).await?;
    assert!(output.success, "{}", output.stderr);
    // Columns are two spaces apart; words in a cell are one.
    let cells = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    Ok(output.stdout.lines().map(cells).collect())
}

async fn instances(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("columns", async |namespace| {
            let path = create(namespace, "ri", &json!({"enabled": true, "hostname": "lake-house"})).await?;
            write_status(namespace, "RemoteInstance", &path, &instance_status(), "latchkey").await?;
            let rows = get(namespace, &["ri"]).await?;
            assert_eq!(rows[0], ["NAME", "URL", "CONNECTED", "VERSION", "BLOCKED", "READY", "AGE"]);
            let (age, row) = rows[1].split_last().unwrap();
            assert_eq!(
                row,
                [
                    "lake-house",
                    "https://lake-house.ui.example.com",
                    "true",
                    "2020.12.1",
                    "[\"core-2021-1-4\"]",
                    "False"
                ]
            );
            assert!(age.ends_with('s'), "{age}");
            let wide = get(namespace, &["ri", "-o", "wide"]).await?;
            assert_eq!(wide[0][6..], ["AGE", "PRODUCT", "WHY"]);
            assert_eq!(wide[1][7..], ["home-assistant-core", "core-2021-1-4: Directory traversal"]);
            Ok(())
        })
        .await
}

async fn blocks(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("columns", async |namespace| {
            let path = create(
                namespace,
                "vb",
                &json!({"versions": ["<=2021.1.4"], "reason": "Directory traversal"}),
            )
            .await?;
            let status = json!({
                "matched": 12, "blocked": 9, "accepted": 3, "observedGeneration": 1,
                "conditions": [condition("Ready", "True", "InForce", "9 of 12 are kept out")],
            });
            write_status(namespace, "VersionBlock", &path, &status, "latchkey").await?;
            let name = namespace.cluster_wide("block");
            let rows = get(namespace, &["vb", &name, "-o", "wide"]).await?;
            assert_eq!(
                rows[0],
                ["NAME", "PRODUCT", "ACTION", "MATCHED", "BLOCKED", "ACCEPTED", "AGE", "REASON"]
            );
            assert_eq!(rows[1][..6], [&name, "home-assistant-core", "Block", "12", "9", "3"]);
            assert_eq!(rows[1][7..], ["Directory traversal"]);
            Ok(())
        })
        .await
}

async fn both_by_category(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("columns", async |namespace| {
            create(namespace, "ri", &json!({})).await?;
            create(namespace, "vb", &json!({"versions": ["<1"], "reason": "Old"})).await?;
            for asked in ["latchkey", "ri,vb"] {
                let names: Vec<String> =
                    get(namespace, &[asked, "-o", "name"]).await?.into_iter().flatten().collect();
                let block = format!("versionblock.latchkey.dev/{}", namespace.cluster_wide("block"));
                assert!(names.contains(&"remoteinstance.latchkey.dev/lake-house".to_owned()), "{names:?}");
                assert!(names.contains(&block), "{names:?}");
            }
            // Before anything is known of them the columns are there all the same.
            let rows = get(namespace, &["ri"]).await?;
            assert_eq!(rows[0].len(), 7);
            assert_eq!(rows[1][0], "lake-house");
            Ok(())
        })
        .await
}

async fn kubectl_waits(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("wait", async |namespace| {
            let path = create(namespace, "ri", &json!({"enabled": true})).await?;
            let wait = ["wait", "--for=condition=Ready", "ri/lake-house", "--timeout=30s", "-n", namespace.name()];
            let status = json!({"observedGeneration": 1, "conditions": [condition("Ready", "True", "Serving", "Served.")]});
            let (waited, written) = tokio::join!(
                control_plane.kubectl(&wait),
                write_status(namespace, "RemoteInstance", &path, &status, "latchkey")
            );
            written?;
            let waited = waited?;
            assert!(waited.success, "{}", waited.stderr);
            assert!(waited.stdout.contains("condition met"), "{}", waited.stdout);
            Ok(())
        })
        .await
}

async fn leaves_the_spec_alone(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            let path = create(namespace, "ri", &json!({"enabled": true, "hostname": "lake-house"})).await?;
            let written =
                write_status(namespace, "RemoteInstance", &path, &instance_status(), "latchkey").await?;
            assert_eq!(written["metadata"]["generation"], 1, "a status makes no new generation");
            assert_eq!(written["spec"]["hostname"], "lake-house");
            assert_eq!(written["status"], instance_status(), "nothing is dropped, nothing is added");
            // Again, the same: nothing changes, so nobody who watches is woken.
            let again =
                write_status(namespace, "RemoteInstance", &path, &instance_status(), "latchkey").await?;
            assert_eq!(again["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);
            // What is no longer said goes.
            let less = json!({"observedGeneration": 1});
            let written = write_status(namespace, "RemoteInstance", &path, &less, "latchkey").await?;
            assert_eq!(written["status"], less);
            // And it reads back as ours.
            let observed = resources::Observed::<resources::RemoteInstance>::read(written)?;
            assert!(matches!(observed, resources::Observed::Readable(_)), "{observed:?}");
            Ok(())
        })
        .await
}

async fn belongs_to_one_writer(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            let path = create(namespace, "ri", &json!({})).await?;
            let ready = json!({"conditions": [condition("Ready", "True", "Serving", "Served.")]});
            let audited = json!({"conditions": [condition("Audited", "True", "Same", "Seen from outside.")]});
            write_status(namespace, "RemoteInstance", &path, &ready, "latchkey").await?;
            // The next one tells all of it, and owns it; of a single member nobody takes notes.
            let next = write_status(namespace, "RemoteInstance", &path, &audited, "somebody-else").await?;
            assert_eq!(next["status"], audited);
            let owners: Vec<&Value> = next["metadata"]["managedFields"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|entry| !entry["fieldsV1"]["f:status"].is_null())
                .collect();
            assert_eq!(owners.len(), 1, "{owners:?}");
            assert_eq!((&owners[0]["manager"], &owners[0]["fieldsV1"]), (&json!("somebody-else"), &json!({"f:status": {}})));
            // Twice the same type is nobody's intention.
            let twice = json!({"conditions": [condition("Ready", "True", "A", "a"), condition("Ready", "False", "B", "b")]});
            let body = json!({"apiVersion": resources::API_VERSION, "kind": "RemoteInstance", "status": twice});
            let query = format!("{path}/status?fieldManager=latchkey&force=true");
            let answer = control_plane.exchange(Method::PATCH, &query, &body).await?;
            assert!(!answer.is_success(), "{}", answer.body);
            Ok(())
        })
        .await
}

async fn spec_leaves_status_alone(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            let path = create(namespace, "ri", &json!({})).await?;
            write_status(namespace, "RemoteInstance", &path, &instance_status(), "latchkey").await?;
            let change = json!({"spec": {"enabled": true}, "status": {"url": "https://evil.example.com"}});
            let answer = control_plane.exchange(Method::PATCH, &path, &change).await?;
            assert!(answer.is_success(), "{}", answer.message());
            assert_eq!(answer.body["status"], instance_status());
            assert_eq!(answer.body["metadata"]["generation"], 2);
            Ok(())
        })
        .await
}
