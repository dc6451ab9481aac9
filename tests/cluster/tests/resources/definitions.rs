//! The definitions themselves.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};
use latchkey_cluster_tests::{Suite, TestError};
use libtest_mimic::Trial;
use resources::{RemoteInstance, VersionBlock};
use serde_json::{Value, json};

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("definitions::are_accepted_without_a_warning", accepted_without_a_warning),
        suite.test("definitions::are_established_and_structural", established_and_structural),
        suite.test("definitions::are_stored_as_they_are_written", stored_as_written),
        suite.test("definitions::have_the_defaults_of_the_types", same_defaults),
        suite.test("definitions::bear_the_largest_instance", largest_instance),
        suite.test("definitions::bear_the_largest_block", largest_block),
    ]
}

/// Warnings are how the API server tells of formats it does not know and of schemas that are not structural. Rules
/// that cost too much are refused.
async fn accepted_without_a_warning(suite: Suite) -> Result<(), TestError> {
    let installed = suite.installed().await?;
    assert_eq!(installed.len(), 2);
    for answer in installed {
        assert!(answer.is_success(), "{}", answer.message());
        assert_eq!(answer.warnings, Vec::<String>::new());
    }
    Ok(())
}

async fn established_and_structural(suite: Suite) -> Result<(), TestError> {
    let api: Api<CustomResourceDefinition> = Api::all(suite.control_plane().await?.client());
    for definition in resources::crds::definitions() {
        let name = definition.name_any();
        let conditions = api.get(&name).await?.status.unwrap().conditions.unwrap();
        let is = |kind: &str| {
            conditions.iter().find(|condition| condition.type_ == kind).map(|c| c.status.as_str())
        };
        assert_eq!(is("Established"), Some("True"), "{name}");
        assert_eq!(is("NamesAccepted"), Some("True"), "{name}");
        assert_eq!(is("NonStructuralSchema"), None, "{name}: {conditions:?}");
    }
    Ok(())
}

/// What the API server does not know, it drops in silence.
async fn stored_as_written(suite: Suite) -> Result<(), TestError> {
    let api: Api<CustomResourceDefinition> = Api::all(suite.control_plane().await?.client());
    for definition in resources::crds::definitions() {
        let stored = serde_json::to_value(api.get(&definition.name_any()).await?.spec)?;
        let mut lost = Vec::new();
        find_lost(&serde_json::to_value(&definition.spec)?, &stored, "spec", &mut lost);
        assert_eq!(lost, Vec::<String>::new());
    }
    Ok(())
}

fn find_lost(written: &Value, stored: &Value, path: &str, lost: &mut Vec<String>) {
    match (written, stored) {
        (Value::Object(written), Value::Object(stored)) => {
            for (name, value) in written {
                match stored.get(name) {
                    Some(kept) => find_lost(value, kept, &format!("{path}.{name}"), lost),
                    None => lost.push(format!("{path}.{name}")),
                }
            }
        }
        (Value::Array(written), Value::Array(stored)) if written.len() == stored.len() => {
            for (at, (value, kept)) in written.iter().zip(stored).enumerate() {
                find_lost(value, kept, &format!("{path}[{at}]"), lost);
            }
        }
        (Value::Number(written), Value::Number(stored)) if written.as_f64() == stored.as_f64() => {}
        _ if written == stored => {}
        _ => lost.push(path.to_owned()),
    }
}

/// A folder and a cluster fill the same gaps with the same values.
async fn same_defaults(suite: Suite) -> Result<(), TestError> {
    for (kind, spec) in [
        ("RemoteInstance", json!({})),
        ("RemoteInstance", json!({"access": {}})),
        ("VersionBlock", json!({"versions": ["<1"], "reason": "Old"})),
    ] {
        let object = json!({"apiVersion": resources::API_VERSION, "kind": kind, "metadata": {"name": "a"}, "spec": spec});
        let verdict = crate::objects::create(&suite, &object).await?;
        verdict.expect_accepted();
        if kind == "RemoteInstance" {
            let (stored, written) =
                (verdict.object::<RemoteInstance>(), serde_json::from_value::<RemoteInstance>(object)?);
            assert_eq!(stored.spec, written.spec);
        } else {
            let (stored, written) =
                (verdict.object::<VersionBlock>(), serde_json::from_value::<VersionBlock>(object)?);
            assert_eq!(stored.spec, written.spec);
        }
    }
    Ok(())
}

/// The rules are paid for at every write, too: an object with everything at its largest must still pass.
async fn largest_instance(suite: Suite) -> Result<(), TestError> {
    let label = |at: usize, length: usize| format!("{at:a<length$}");
    // 3 x 63 letters, dots and the rest: 253 in all.
    let domain =
        |at: usize| format!("{}.{}.{}.{}", label(at, 63), label(1, 63), label(2, 63), "x".repeat(61));
    let digests =
        |first: u8| (0..64).map(|at| vec![format!("{:02x}", first + at); 32].join(":")).collect::<Vec<_>>();
    let networks = |prefix: &str| {
        (0..256).map(|at| format!("{prefix}:{at:04x}:ffff:ffff:ffff:ffff:ffff:ffff/128")).collect::<Vec<_>>()
    };
    let accepted: Vec<Value> = (0..256)
        .map(|at| json!({"name": vec![label(at, 62); 4].join("."), "reason": "r".repeat(1024), "by": "b".repeat(253)}))
        .collect();
    let object = json!({
        "apiVersion": resources::API_VERSION,
        "kind": "RemoteInstance",
        "metadata": {"name": "largest"},
        "spec": {
            "installation": label(0, 63),
            "hostname": label(0, 63),
            "customDomains": (0..16).map(domain).collect::<Vec<_>>(),
            "product": "p".repeat(64),
            "version": "9".repeat(64),
            "acceptedBlocks": accepted,
            "agentKeys": digests(0),
            "tunnels": 64,
            "acknowledgedCertificates": digests(100),
            "access": {"allowNetworks": networks("2001"), "denyNetworks": networks("2002")},
        },
    });
    crate::objects::create(&suite, &object).await?.expect_accepted();
    Ok(())
}

async fn largest_block(suite: Suite) -> Result<(), TestError> {
    let range = |at: usize| {
        let comparisons: Vec<String> =
            (1..8).map(|part| format!("<= {at}.{part}.0.dev20230801020304")).collect();
        format!("{:<256}", comparisons.join(", "))
    };
    let object = json!({
        "apiVersion": resources::API_VERSION,
        "kind": "VersionBlock",
        "metadata": {"name": "largest"},
        "spec": {
            "product": "p".repeat(64),
            "versions": (2000..2064).map(range).collect::<Vec<_>>(),
            "reason": "r".repeat(2048),
            "moreInfo": format!("https://{}", "x".repeat(2040)),
        },
    });
    crate::objects::create(&suite, &object).await?.expect_accepted();
    Ok(())
}
