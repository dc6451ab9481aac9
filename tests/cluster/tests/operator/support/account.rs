//! The operator's `ServiceAccount`, with exactly the rights that `deploy/operator.yaml` gives it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use http::Method;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use latchkey_cluster_tests::{TestError, TestNamespace};
use latchkey_operator::names::Names;
use serde_json::{Value, json};

use super::eventually;
use super::installation::accepted;

/// What is applied of the manifest: the account and its rights. Tests run the processes themselves.
const KINDS: [&str; 5] = ["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
/// How long a token counts: longer than any test.
const TOKEN_SECONDS: u32 = 7_200;

/// A right: where, group, resource, name (or `-`), verb.
pub(crate) type Right = [String; 5];

pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// `deploy/operator.yaml` for an installation in a namespace. What is cluster-wide goes with the namespace.
pub(crate) fn manifest(namespace: &TestNamespace<'_>, names: &Names) -> Result<Vec<Value>, TestError> {
    let text = std::fs::read_to_string(repository("deploy/operator.yaml"))?
        .replace("latchkey-default", &names.settings())
        .replace(
            "latchkey.dev/installation: default",
            &format!("latchkey.dev/installation: {}", names.installation),
        )
        .replace("--installation=default", &format!("--installation={}", names.installation))
        .replace("namespace: latchkey\n", &format!("namespace: {}\n", names.namespace));
    let mut objects: Vec<Value> = serde_yaml::from_multiple(&text)?;
    for object in &mut objects {
        for name in ["/metadata/name", "/roleRef/name"] {
            let is_cluster_wide = match name {
                "/metadata/name" => object["metadata"]["namespace"].is_null(),
                _ => object.pointer("/roleRef/kind") == Some(&json!("ClusterRole")),
            };
            if let Some(name) = object.pointer_mut(name).filter(|_| is_cluster_wide) {
                *name = json!(namespace.cluster_wide(name.as_str().unwrap_or_default()));
            }
        }
    }
    Ok(objects)
}

/// Every right that a list of objects gives.
pub(crate) fn rights(objects: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for object in objects {
        let place = match object["kind"].as_str() {
            Some("Role") => "namespace",
            Some("ClusterRole") => "cluster",
            _ => continue,
        };
        for rule in object["rules"].as_array().unwrap() {
            let words = |member: &str| -> Vec<String> {
                let words = rule[member].as_array().map(Vec::as_slice).unwrap_or_default();
                words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
            };
            let mut names = words("resourceNames");
            if names.is_empty() {
                names.push("-".to_owned());
            }
            for group in words("apiGroups") {
                for resource in words("resources") {
                    for (name, verb) in pairs(&names, &words("verbs")) {
                        rights.insert([place.to_owned(), group.clone(), resource.clone(), name, verb]);
                    }
                }
            }
        }
    }
    rights
}

pub(crate) fn pairs(one: &[String], two: &[String]) -> Vec<(String, String)> {
    one.iter().flat_map(|first| two.iter().map(|second| (first.clone(), second.clone()))).collect()
}

/// From now on only pods of the "restricted" standard run in the namespace; of what would make others is warned.
pub(crate) async fn restrict(namespace: &TestNamespace<'_>) -> Result<(), TestError> {
    let labels = ["enforce", "warn"].map(|mode| (format!("pod-security.kubernetes.io/{mode}"), "restricted"));
    let labels = json!({"metadata": {"labels": std::collections::BTreeMap::from(labels)}});
    let path = format!("/api/v1/namespaces/{}", namespace.name());
    accepted(namespace.control_plane().exchange(Method::PATCH, &path, &labels).await?)?;
    Ok(())
}

/// The account of an installation's operators, and a token of it.
pub(crate) struct Account {
    /// Whom the API server takes its holder for.
    pub(crate) user: String,
    /// The way to the API server, with the token and nothing else to be known by.
    kubeconfig: Value,
}

impl Account {
    /// Makes the account with its rights, and waits until they count.
    pub(crate) async fn make(namespace: &TestNamespace<'_>, names: &Names) -> Result<Self, TestError> {
        let control_plane = namespace.control_plane();
        let objects = manifest(namespace, names)?;
        let objects: Vec<_> =
            objects.into_iter().filter(|object| KINDS.iter().any(|kind| object["kind"] == *kind)).collect();
        let given = rights(&objects);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let applied = control_plane
            .kubectl_with_input(&["apply", "--server-side", "-f", "-"], &list.to_string())
            .await?;
        if !applied.success {
            return Err(format!("the operator's rights: {}", applied.stderr).into());
        }
        // As the manifest calls it.
        let name = format!("{}-operator", names.settings());
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS},
        });
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{name}/token", names.namespace);
        let answer = accepted(control_plane.exchange(Method::POST, &path, &request).await?)?;
        let token = answer["status"]["token"].as_str().ok_or("no token")?;
        let account = Self {
            user: format!("system:serviceaccount:{}:{name}", names.namespace),
            kubeconfig: kubeconfig(control_plane.kubeconfig(), token)?,
        };
        let client = account.client().await?;
        for right in &given {
            eventually("the account's rights count", async || may(&client, &names.namespace, right).await)
                .await?;
        }
        Ok(account)
    }

    /// A client that is the account.
    pub(crate) async fn client(&self) -> Result<Client, TestError> {
        let config: Kubeconfig = serde_json::from_value(self.kubeconfig.clone())?;
        let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }

    /// Writes a kubeconfig that makes its reader the account. `server`: another way to the API server.
    pub(crate) fn write_kubeconfig(&self, path: &Path, server: Option<&str>) -> Result<(), TestError> {
        let mut config = self.kubeconfig.clone();
        if let Some(server) = server {
            config["clusters"][0]["cluster"]["server"] = json!(server);
        }
        Ok(std::fs::write(path, config.to_string())?)
    }
}

/// The cluster of a kubeconfig, and a token in place of who may do everything.
fn kubeconfig(of: &Path, token: &str) -> Result<Value, TestError> {
    let all = Kubeconfig::read_from(of)?;
    let current = all.current_context.as_deref();
    let context = all.contexts.iter().find(|context| Some(&*context.name) == current);
    let name = context.and_then(|context| context.context.as_ref()).map(|context| &context.cluster);
    let cluster = all.clusters.iter().find(|cluster| Some(&cluster.name) == name);
    let cluster =
        cluster.and_then(|cluster| cluster.cluster.as_ref()).ok_or("no cluster in the kubeconfig")?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "operator",
        "contexts": [{"name": "operator", "context": {"cluster": "tests", "user": "operator"}}],
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "operator", "user": {"token": token}}],
    }))
}

/// Asks the API server whether a client may, where a right is for.
async fn may(client: &Client, namespace: &str, right: &Right) -> Result<(), TestError> {
    let [place, group, resource, name, verb] = right;
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let name = if name == "-" { "" } else { name };
    let namespace = if place == "cluster" { "" } else { namespace };
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "namespace": namespace, "group": group, "resource": resource, "subresource": subresource,
            "name": name, "verb": verb,
        }},
    });
    let request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header("content-type", "application/json")
        .body(review.to_string().into_bytes())?;
    let answer: Value = client.request(request).await?;
    if answer["status"]["allowed"] == true { Ok(()) } else { Err(format!("{right:?}: not yet").into()) }
}
