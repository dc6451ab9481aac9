//! What may change in an object that is there, and what may not.

use http::Method;
use latchkey_cluster_tests::{Answer, Suite, TestError, TestNamespace};
use libtest_mimic::Trial;
use serde_json::{Value, json};

/// Kind, the spec that is there, the change, and which member is refused with which words; `None`: it may change.
type Case = (&'static str, &'static str, Value, Value, Option<(&'static str, &'static str)>);

fn cases() -> Vec<Case> {
    let block = || json!({"product": "grafana", "versions": ["<1.2", "=2.0"], "reason": "Path traversal"});
    vec![
        (
            "installation_set_later",
            "ri",
            json!({}),
            json!({"installation": "west"}),
            Some(("spec.installation", "cannot be changed")),
        ),
        (
            "installation_changed",
            "ri",
            json!({"installation": "west"}),
            json!({"installation": "east"}),
            Some(("spec.installation", "cannot be changed")),
        ),
        (
            "installation_removed",
            "ri",
            json!({"installation": "west"}),
            json!({"installation": null}),
            Some(("spec.installation", "cannot be changed")),
        ),
        ("installation_left_alone", "ri", json!({"installation": "west"}), json!({"enabled": true}), None),
        ("hostname_set_later", "ri", json!({}), json!({"hostname": "lake-house"}), None),
        (
            "hostname_changed",
            "ri",
            json!({"hostname": "lake-house"}),
            json!({"hostname": "cabin"}),
            Some(("spec.hostname", "cannot be changed: remove it")),
        ),
        ("hostname_given_up", "ri", json!({"hostname": "lake-house"}), json!({"hostname": null}), None),
        ("product_of_an_instance", "ri", json!({}), json!({"product": "grafana"}), None),
        (
            "everything_else_of_an_instance",
            "ri",
            json!({"hostname": "lake-house", "version": "2026.1"}),
            json!({"enabled": true, "version": "2026.2", "tunnels": 2, "customDomains": ["home.example.com"], "acceptedBlocks": [{"name": "a"}], "access": {"maxConnections": 7}}),
            None,
        ),
        ("spec_removed", "ri", json!({}), Value::Null, Some(("spec", "Required"))),
        (
            "versions_changed",
            "vb",
            block(),
            json!({"versions": ["<1.3", "=2.0"]}),
            Some(("spec.versions", "a new finding is a new VersionBlock")),
        ),
        (
            "versions_added",
            "vb",
            block(),
            json!({"versions": ["<1.2", "=2.0", "=3.0"]}),
            Some(("spec.versions", "a new finding is a new VersionBlock")),
        ),
        (
            "versions_removed",
            "vb",
            block(),
            json!({"versions": ["<1.2"]}),
            Some(("spec.versions", "a new finding is a new VersionBlock")),
        ),
        ("versions_in_another_order", "vb", block(), json!({"versions": ["=2.0", "<1.2"]}), None),
        (
            "product_of_a_block",
            "vb",
            block(),
            json!({"product": "loki"}),
            Some(("spec.product", "a new finding is a new VersionBlock")),
        ),
        (
            "product_of_a_block_removed",
            "vb",
            block(),
            json!({"product": null}),
            Some(("spec.product", "a new finding is a new VersionBlock")),
        ),
        (
            "everything_else_of_a_block",
            "vb",
            block(),
            json!({"action": "Warn", "reason": "Known better now", "moreInfo": "https://example.com/2"}),
            None,
        ),
    ]
}

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    let test = |case: Case| suite.test(format!("changes::{}", case.0), move |suite| change(suite, case));
    let mut tests: Vec<Trial> = cases().into_iter().map(test).collect();
    tests.push(suite.test("changes::two_people_accept_blocks_side_by_side", side_by_side));
    tests
}

/// Entries of lists belong to whoever wrote them, not to whoever wrote last.
async fn side_by_side(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("change", async |namespace| {
            let path = create(namespace, "ri", &json!({})).await?;
            let apply = async |manager: &str, spec: Value| {
                let body =
                    json!({"apiVersion": resources::API_VERSION, "kind": "RemoteInstance", "spec": spec});
                control_plane.exchange(Method::PATCH, &format!("{path}?fieldManager={manager}"), &body).await
            };
            apply("git", json!({"acceptedBlocks": [{"name": "a"}], "customDomains": ["a.example.com"]}))
                .await?;
            let by_hand = json!({"acceptedBlocks": [{"name": "b"}], "customDomains": ["b.example.com"]});
            let both = apply("hand", by_hand).await?;
            assert_eq!(
                both.body["spec"]["acceptedBlocks"],
                json!([{"name": "a"}, {"name": "b"}]),
                "{}",
                both.message()
            );
            assert_eq!(both.body["spec"]["customDomains"], json!(["a.example.com", "b.example.com"]));
            let one = apply("git", json!({"acceptedBlocks": []})).await?;
            assert_eq!(one.body["spec"]["acceptedBlocks"], json!([{"name": "b"}]), "{}", one.message());
            assert_eq!(one.body["spec"]["customDomains"], json!(["b.example.com"]));
            Ok(())
        })
        .await
}

async fn change(suite: Suite, (_, kind, spec, change, refused): Case) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("change", async |namespace| {
            let path = create(namespace, kind, &spec).await?;
            let answer = control_plane.exchange(Method::PATCH, &path, &json!({"spec": change})).await?;
            match refused {
                None => assert!(answer.is_success(), "{}", answer.message()),
                Some((names, says)) => {
                    let message = answer.message();
                    assert_eq!(answer.code, 422, "{message}");
                    assert!(message.contains(&format!("{names}: ")) && message.contains(says), "{message}");
                }
            }
            Ok(())
        })
        .await
}

/// Stores an object and gives its path.
pub(crate) async fn create(
    namespace: &TestNamespace<'_>,
    kind: &str,
    spec: &Value,
) -> Result<String, TestError> {
    let api = format!("/apis/{}", resources::API_VERSION);
    let (kind, name, folder) = match kind {
        "ri" => (
            "RemoteInstance",
            "lake-house".to_owned(),
            format!("{api}/namespaces/{}/remoteinstances", namespace.name()),
        ),
        _ => ("VersionBlock", namespace.cluster_wide("block"), format!("{api}/versionblocks")),
    };
    let object = json!({
        "apiVersion": resources::API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let answer: Answer = namespace.control_plane().exchange(Method::POST, &folder, &object).await?;
    if answer.is_success() { Ok(format!("{folder}/{name}")) } else { Err(answer.message().into()) }
}
