//! What `kubectl explain` tells: for many it is the first documentation they see.

use latchkey_cluster_tests::{Suite, TestError};
use libtest_mimic::Trial;

/// What is asked, and lines of the answer. White space counts as one space: kubectl breaks lines where it likes.
const EXPLAINED: &[(&str, &[&str])] = &[
    (
        "ri",
        &[
            "KIND: RemoteInstance",
            "VERSION: v1alpha1",
            "An instance behind NAT, and how it may be reached from outside.",
            "spec <Object> -required-",
        ],
    ),
    (
        "ri.spec",
        &[
            "enabled <boolean> Is remote access on? Off until asked for.",
            "hostname <string> The label under the installation's domain, e.g. lake-house; without one a random name is assigned.",
            "customDomains <[]string> Domains of its own, e.g. home.example.com, served once DNS shows that they are meant: status.hostnames says which record to make.",
            "acceptedBlocks <[]Object>",
            "tunnels <integer> Live tunnels allowed at once, 1 unless said otherwise",
        ],
    ),
    (
        "ri.spec.version",
        &["FIELD: version <string>", "Always in quotes: 2023.10 without them is the number 2023.1."],
    ),
    (
        "ri.spec.access",
        &[
            "denyNetworks <[]string> Networks visitors may not come from, whatever is allowed.",
            "maxConnections <integer> Visitor connections at once, 512 unless said otherwise.",
        ],
    ),
    ("ri.spec.acceptedBlocks", &["name <string> -required- Name of the version block."]),
    (
        "ri.status",
        &[
            "url <string> Where visitors reach it.",
            "blockedBy <[]string> Names of the version blocks in force.",
        ],
    ),
    (
        "ri.status.hostnames",
        &[
            "enum: Serving, PendingVerification, Conflict",
            "verification <Object> The DNS record that proves a custom domain.",
        ],
    ),
    ("ri.status.conditions", &["enum: True, False, Unknown"]),
    ("vb", &["KIND: VersionBlock", "Versions of a product that may not be reached from outside."]),
    (
        "vb.spec",
        &[
            "versions <[]string> -required-",
            "reason <string> -required- What is wrong with them.",
            "enum: Block, Warn",
        ],
    ),
    ("vb.spec.versions", &["e.g. \"<=2021.1.4\" or \">=2023.1, <2023.3.2\", where the comma means \"and\"."]),
    ("vb.status", &["matched <integer> Instances whose version it names."]),
];

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    let test = |&(asked, lines)| {
        suite.test(format!("explains::{asked}"), move |suite| explains(suite, asked, lines))
    };
    let mut tests: Vec<Trial> = EXPLAINED.iter().map(test).collect();
    tests.push(suite.test("explains::every_member", every_member));
    tests
}

async fn explain(suite: &Suite, arguments: &[&str]) -> Result<String, TestError> {
    let output = suite.control_plane().await?.kubectl(&[&["explain"], arguments].concat()).await?;
    assert!(output.success, "{}", output.stderr);
    Ok(output.stdout.split_whitespace().collect::<Vec<_>>().join(" "))
}

async fn explains(suite: Suite, asked: &str, lines: &[&str]) -> Result<(), TestError> {
    let told = explain(&suite, &[asked]).await?;
    for line in lines {
        assert!(told.contains(line), "{line}\nis not in\n{told}");
    }
    Ok(())
}

/// No member without a word about it, at any depth, and nothing that only reads well in the source.
async fn every_member(suite: Suite) -> Result<(), TestError> {
    for definition in resources::crds::definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema)?;
        let mut members = Vec::new();
        describe(&schema["openAPIV3Schema"], "", &mut members);
        assert!(members.len() > 15);
        for (path, description) in members {
            assert!(description.len() > 5, "{path} has no description");
            assert!(description.ends_with(['.', '?']), "{path}: {description}");
            assert!(!description.contains(['`', '\n', '[']), "{path}: {description}");
        }
    }
    let told = explain(&suite, &["ri", "--recursive"]).await?;
    assert!(told.contains("acmeAccountUri <string>"), "{told}");
    Ok(())
}

fn describe(schema: &serde_json::Value, path: &str, members: &mut Vec<(String, String)>) {
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        members.push((path.clone(), member["description"].as_str().unwrap_or_default().to_owned()));
        describe(member, &path, members);
        describe(&member["items"], &path, members);
    }
}
