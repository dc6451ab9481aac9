//! The objects of tests/scenarios, written to an API server in their order. A scenario that is played by the planner must be
//! possible in a cluster, or say that it is not.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use http::Method;
use latchkey_cluster_tests::{Answer, Suite, TestError, TestNamespace};
use libtest_mimic::Trial;
use serde_json::{Value, json};

/// What a scenario may need that an API server with these definitions does not allow.
const NOT_ALLOWED: [&str; 2] = ["unvalidated-objects", "mutable-fields"];

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 60, "tests/scenarios has lost its files");
    let test = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        suite.test(format!("scenarios::{name}"), move |suite| play(suite, path))
    };
    files.into_iter().map(test).collect()
}

async fn play(suite: Suite, path: PathBuf) -> Result<(), TestError> {
    let scenario: Value = serde_yaml::from_str(&std::fs::read_to_string(&path)?)?;
    let scenario = fill_in(scenario);
    let needs = scenario["needs"].as_array().cloned().unwrap_or_default();
    let needs: Vec<&str> =
        needs.iter().filter_map(Value::as_str).filter(|need| NOT_ALLOWED.contains(need)).collect();
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("scenario", async |namespace| {
            let mut written = Written { namespace, objects: BTreeMap::new() };
            let mut refused = Vec::new();
            for step in scenario["steps"].as_array().into_iter().flatten() {
                for object in step["apply"].as_array().into_iter().flatten() {
                    let answer = written.apply(object).await?;
                    if !answer.is_success() {
                        refused.push(format!("{}: {}", step["step"], answer.message()));
                    }
                }
                for name in step["delete"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    written.delete(name).await?;
                }
            }
            if needs.is_empty() {
                assert_eq!(refused, Vec::<String>::new());
            } else {
                assert!(!refused.is_empty(), "it needs {needs:?}, but all of it is allowed");
            }
            Ok(())
        })
        .await
}

/// Writes something of the right form for the names that nobody can write by hand: `<key:word>`, `<random:homes/lake>`.
fn fill_in(value: Value) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix('<').and_then(|text| text.strip_suffix('>')) {
            Some(placeholder) if placeholder.starts_with("key:") => {
                let mut hasher = DefaultHasher::new();
                placeholder.hash(&mut hasher);
                json!(format!("{:064x}", hasher.finish()))
            }
            Some(placeholder) if placeholder.starts_with("random:") => json!("r".repeat(32)),
            _ => json!(text),
        },
        Value::Array(values) => values.into_iter().map(fill_in).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, fill_in(value))).collect(),
        other => other,
    }
}

/// The objects of a scenario under names of this test: where they are, and their last version.
struct Written<'a, 'b> {
    namespace: &'a TestNamespace<'b>,
    objects: BTreeMap<String, (String, Value)>,
}

impl Written<'_, '_> {
    /// Creates an object, or writes over the one that is there: what is left out is gone.
    async fn apply(&mut self, object: &Value) -> Result<Answer, TestError> {
        let name = object["metadata"]["name"].as_str().ok_or("an object without a name")?;
        let api = format!("/apis/{}", resources::API_VERSION);
        let (id, new_name, folder) = if object["kind"] == "VersionBlock" {
            (name.to_owned(), self.namespace.cluster_wide(name), format!("{api}/versionblocks"))
        } else {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
            let folder = format!("{api}/namespaces/{}/remoteinstances", self.namespace.name());
            (format!("{namespace}/{name}"), format!("{namespace}.{name}"), folder)
        };
        let mut object = object.clone();
        object["apiVersion"] = json!(resources::API_VERSION);
        let metadata = object["metadata"].as_object_mut().ok_or("an object without metadata")?;
        metadata.remove("namespace");
        metadata.insert("name".to_owned(), json!(new_name));
        let there = self.objects.get(&id);
        if let Some((_, version)) = there {
            metadata.insert("resourceVersion".to_owned(), version.clone());
        }
        let path = format!("{folder}/{new_name}");
        let (method, place) = if there.is_some() { (Method::PUT, &path) } else { (Method::POST, &folder) };
        let query = format!("{place}?fieldValidation=Strict");
        let answer = self.namespace.control_plane().exchange(method, &query, &object).await?;
        if answer.is_success() {
            self.objects.insert(id, (path, answer.body["metadata"]["resourceVersion"].clone()));
        }
        Ok(answer)
    }

    async fn delete(&mut self, id: &str) -> Result<(), TestError> {
        // One that was refused was never there.
        if let Some((path, _)) = self.objects.remove(id) {
            self.namespace.control_plane().exchange(Method::DELETE, &path, &json!({})).await?;
        }
        Ok(())
    }
}
