//! What the operator may do: `deploy/operator.yaml`, `docs/rbac.md` and a real API server say the same.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use latchkey_cluster_tests::{Suite, TestError, TestNamespace};
use latchkey_operator::names::Names;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{Right, manifest, pairs, repository, restrict, rights};

const ACCOUNT: &str = "latchkey-default-operator";

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("rbac::the_table_and_the_manifest_say_the_same", same_as_the_table),
        suite.test("rbac::the_manifest_is_accepted_and_allows_what_it_lists_alone", allowed_and_refused),
    ]
}

fn names(namespace: &TestNamespace<'_>) -> Names {
    Names { namespace: namespace.name().to_owned(), installation: "default".to_owned() }
}

async fn same_as_the_table(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let given = rights(&manifest(namespace, &names(namespace))?);
        let page = std::fs::read_to_string(repository("docs/rbac.md"))?;
        let mut told = BTreeSet::new();
        for row in
            page.lines().filter(|line| line.starts_with("| namespace |") || line.starts_with("| cluster |"))
        {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [place, group, resources, names, verbs, why] = cells[..] else { panic!("{row}") };
            assert!(why.len() > 10, "no reason: {row}");
            let words = |cell: &str| -> Vec<String> { cell.split(", ").map(str::to_owned).collect() };
            let group = if group == "core" { "" } else { group };
            for resource in words(resources) {
                for (name, verb) in pairs(&words(names), &words(verbs)) {
                    told.insert([place.to_owned(), group.to_owned(), resource.clone(), name, verb]);
                }
            }
        }
        let untold: Vec<_> = given.difference(&told).collect();
        let not_given: Vec<_> = told.difference(&given).collect();
        assert!(
            untold.is_empty() && not_given.is_empty(),
            "not in the table: {untold:?}; not given: {not_given:?}"
        );
        Ok(())
    };
    suite.control_plane().await?.in_namespace("rbac-table", test).await
}

/// The account, and questions about what it may do.
struct Account<'a> {
    admin: Client,
    namespace: &'a str,
    user: String,
}

impl Account<'_> {
    /// Asks the authorizer that judges every request.
    async fn may(&self, place: &str, right: &Right) -> Result<bool, TestError> {
        let [_, group, resource, name, verb] = right;
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let name = if name == "-" { "" } else { name };
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": self.user,
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{}", self.namespace), "system:authenticated"],
                "resourceAttributes": {
                    "namespace": place, "group": group, "resource": resource, "subresource": subresource,
                    "name": name, "verb": verb,
                },
            },
        });
        let request = http::Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews")
            .header("content-type", "application/json")
            .body(review.to_string().into_bytes())?;
        let answer: Value = self.admin.request(request).await?;
        Ok(answer["status"]["allowed"] == true)
    }
}

async fn allowed_and_refused(suite: Suite) -> Result<(), TestError> {
    let test = async |namespace: &TestNamespace<'_>| {
        let control_plane = namespace.control_plane();
        let objects = manifest(namespace, &names(namespace))?;
        // Then a pod that asks for more than it should is warned of.
        restrict(namespace).await?;
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let apply = ["apply", "--server-side", "--validate=strict", "-f", "-"];
        let applied = control_plane.kubectl_with_input(&apply, &list.to_string()).await?;
        assert!(
            applied.success && !applied.stderr.contains("Warning"),
            "{}{}",
            applied.stdout,
            applied.stderr
        );

        let user = format!("system:serviceaccount:{}:{ACCOUNT}", namespace.name());
        let account =
            Account { admin: control_plane.client(), namespace: namespace.name(), user: user.clone() };
        let given = rights(&manifest(namespace, &names(namespace))?);
        what_is_listed_is_allowed(&account, &given).await?;
        what_is_not_listed_is_refused(&account, &given).await?;
        real_requests(control_plane.client_as(&user).await?, namespace.name()).await
    };
    suite.control_plane().await?.in_namespace("rbac", test).await
}

async fn what_is_listed_is_allowed(account: &Account<'_>, given: &BTreeSet<Right>) -> Result<(), TestError> {
    for right in given {
        let places = if right[0] == "cluster" {
            vec![account.namespace, "elsewhere", ""]
        } else {
            vec![account.namespace]
        };
        for place in places {
            assert!(account.may(place, right).await?, "{right:?} in {place:?}");
        }
        if right[0] == "namespace" {
            let everywhere = given
                .iter()
                .any(|other| other[0] == "cluster" && other[1..3] == right[1..3] && other[4] == right[4]);
            assert_eq!(account.may("elsewhere", right).await?, everywhere, "{right:?} in another namespace");
        }
    }
    Ok(())
}

/// Every verb of every kind that is near, but for those that are given.
async fn what_is_not_listed_is_refused(
    account: &Account<'_>,
    given: &BTreeSet<Right>,
) -> Result<(), TestError> {
    const VERBS: [&str; 8] =
        ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    const KINDS: [(&str, &str); 26] = [
        ("", "secrets"),
        ("", "configmaps"),
        ("", "pods"),
        ("", "pods/exec"),
        ("", "pods/attach"),
        ("", "pods/portforward"),
        ("", "pods/ephemeralcontainers"),
        ("", "pods/eviction"),
        ("", "services"),
        ("", "serviceaccounts"),
        ("", "serviceaccounts/token"),
        ("", "nodes"),
        ("", "nodes/proxy"),
        ("", "namespaces"),
        ("", "events"),
        ("apps", "statefulsets"),
        ("apps", "deployments"),
        ("policy", "poddisruptionbudgets"),
        ("networking.k8s.io", "networkpolicies"),
        ("coordination.k8s.io", "leases"),
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "clusterrolebindings"),
        ("latchkey.dev", "remoteinstances"),
        ("latchkey.dev", "versionblocks"),
        ("latchkey.dev", "remoteinstances/status"),
        ("events.k8s.io", "events"),
    ];
    for (group, resource) in KINDS {
        for (verb, name) in VERBS.iter().flat_map(|verb| ["-", "somebody-elses"].map(|name| (*verb, name))) {
            // A name is no restriction where no names are given.
            let is_given = given.iter().any(|right| right[1..] == [group, resource, "-", verb]);
            let right = ["", group, resource, name, verb].map(str::to_owned);
            if !is_given {
                assert!(!account.may(account.namespace, &right).await?, "{right:?} is allowed");
            }
        }
    }
    Ok(())
}

/// The same by what the operator really sends.
async fn real_requests(client: Client, namespace: &str) -> Result<(), TestError> {
    fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> u16 {
        match answer {
            Ok(_) => 200,
            Err(Error::Api(status)) => status.code,
            Err(error) => panic!("{error}"),
        }
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    assert_eq!(code(secrets.list(&ListParams::default()).await), 403);
    assert_eq!(code(Api::<Secret>::all(client.clone()).list(&ListParams::default()).await), 403);
    assert_eq!(code(secrets.get("latchkey-default-seed").await), 404, "it may, but there is none");
    let secret = |name: &str| -> Secret {
        serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {"bundle": "x"}})).unwrap()
    };
    for name in ["latchkey-default-seed", "latchkey-default-authority", "home-join"] {
        assert_eq!(code(secrets.create(&PostParams::default(), &secret(name)).await), 200, "{name}");
    }
    assert_eq!(code(secrets.get("latchkey-default-seed").await), 200);
    assert_eq!(code(secrets.get("home-join").await), 403);
    let nothing = Patch::Merge(json!({}));
    assert_eq!(
        code(secrets.patch("home-join", &PatchParams::default(), &nothing).await),
        403,
        "it would answer with it"
    );
    for (name, expected) in [("latchkey-default-seed", 403), ("latchkey-default-authority", 200)] {
        assert_eq!(code(secrets.patch(name, &PatchParams::default(), &nothing).await), expected, "{name}");
    }

    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let set = |name: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
            "spec": {
                "replicas": 0, "serviceName": "x", "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "image": "x"}]}},
            },
        })
    };
    let apply = PatchParams::apply("latchkey-operator").force();
    for (name, expected) in [("latchkey-default-proxy", 200), ("another", 403)] {
        assert_eq!(code(sets.patch(name, &apply, &Patch::Apply(set(name))).await), expected, "{name}");
    }
    let by_name = ListParams::default().fields("metadata.name=latchkey-default-proxy");
    assert_eq!(code(sets.list(&by_name).await), 200, "a watch of one name begins so");
    assert_eq!(code(sets.list(&ListParams::default()).await), 403);
    assert_eq!(
        code(Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await),
        200
    );
    assert_eq!(code(Api::<Pod>::all(client.clone()).list(&ListParams::default()).await), 403);
    let nodes: Api<Node> = Api::all(client);
    assert_eq!(code(nodes.get("none").await), 404);
    assert_eq!(code(nodes.list(&ListParams::default()).await), 403);
    Ok(())
}
