//! Reads scenarios, and refuses those that could pass without showing anything.

use std::path::{Path, PathBuf};

use resources::{Installation, Observed, Parts, RemoteInstance, VersionBlock};
use serde_json::{Map, Value};

use crate::file::{DnsAnswer, Need, Record, Scenario, Step};
use crate::{names, world};

/// Why a file is no scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct ReadError {
    /// Which file.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads every `*.yaml` of a folder, in the order of their names.
pub fn read_folder(folder: &Path) -> Result<Vec<(PathBuf, Scenario)>, ReadError> {
    let told = |problem: &std::io::Error| ReadError {
        file: folder.display().to_string(),
        problem: problem.to_string(),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| told(&error))? {
        let path = entry.map_err(|error| told(&error))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files.into_iter().map(|path| read_file(&path).map(|scenario| (path, scenario))).collect()
}

/// Reads a file.
pub fn read_file(path: &Path) -> Result<Scenario, ReadError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ReadError { file: file.clone(), problem: error.to_string() })?;
    read_text(&text).map_err(|problem| ReadError { file, problem })
}

/// Reads a text.
pub fn read_text(text: &str) -> Result<Scenario, String> {
    let text = names::expand(text)?;
    let mut scenario: Scenario = serde_yaml::from_str(&text).map_err(|error| error.to_string())?;
    if scenario.title.trim().is_empty() || scenario.why.trim().is_empty() {
        return Err("title and why must say something".to_owned());
    }
    if scenario.steps.is_empty() {
        return Err("has no steps".to_owned());
    }
    let mut settings = scenario.installation.clone();
    check_installation(&settings)?;
    let mut needs = Vec::new();
    for step in &mut scenario.steps {
        let told = |problem: String| format!("step {:?}: {problem}", step.step);
        settings.extend(step.installation.clone());
        check_installation(&settings).map_err(told)?;
        step.apply = step
            .apply
            .drain(..)
            .map(|object| complete(object, &mut needs))
            .collect::<Result<_, _>>()
            .map_err(|problem| format!("step {:?}: {problem}", step.step))?;
        check_step(step).map_err(|problem| format!("step {:?}: {problem}", step.step))?;
    }
    for need in needs {
        if !scenario.needs.contains(&need) {
            return Err(format!("say `needs: [{}]`, so that a world that cannot do it knows", told(need)));
        }
    }
    Ok(scenario)
}

fn told(need: Need) -> &'static str {
    match need {
        Need::CreationTimes => "creation-times",
        Need::UnvalidatedObjects => "unvalidated-objects",
        Need::MutableFields => "mutable-fields",
        Need::ForgetfulRestart => "forgetful-restart",
        Need::RemembersDeleted => "remembers-deleted",
    }
}

fn check_installation(settings: &Map<String, Value>) -> Result<(), String> {
    serde_json::from_value::<Installation>(world::installation(settings))
        .map(|_| ())
        .map_err(|error| format!("installation: {error}"))
}

fn check_step(step: &Step) -> Result<(), String> {
    if step.step.trim().is_empty() {
        return Err("a step says in words what happens".to_owned());
    }
    if step.expect.is_empty() {
        return Err("expects nothing".to_owned());
    }
    let ids = step.facts.reports.keys().chain(step.facts.enrolled.keys()).chain(step.expect.statuses.keys());
    let routes = step.expect.routes.iter().flat_map(|routes| routes.named.keys());
    for id in ids.chain(routes) {
        if id.parse::<route_table::InstanceId>().is_err() {
            return Err(format!("{id:?} is no instance: write namespace/name"));
        }
    }
    for answer in step.facts.dns.values() {
        let DnsAnswer::Records(records) = answer else { continue };
        for record in records {
            let (Record::Txt(text) | Record::Cname(text)) = record;
            names::expand_verification(text, |id| match id.parse::<route_table::InstanceId>() {
                Ok(_) => Ok(String::new()),
                Err(error) => Err(format!("<verification:{id}>: {error}")),
            })?;
        }
    }
    Ok(())
}

/// Adds what goes without saying to an object, and notes what it needs.
fn complete(mut object: Value, needs: &mut Vec<Need>) -> Result<Value, String> {
    let members =
        object.as_object_mut().ok_or("an object is a map of apiVersion, kind, metadata and spec")?;
    members.entry("apiVersion").or_insert_with(|| resources::API_VERSION.into());
    if members.contains_key("status") {
        return Err("a status is expected, never applied".to_owned());
    }
    let kind = members.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "RemoteInstance"
        && let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.entry("namespace").or_insert_with(|| "default".into());
    }
    if object.pointer("/metadata/creationTimestamp").is_some() {
        needs.push(Need::CreationTimes);
    }
    let readable = match kind.as_str() {
        "RemoteInstance" => readable::<RemoteInstance>(&object)?,
        "VersionBlock" => readable::<VersionBlock>(&object)?,
        _ => return Err(format!("kind is {kind:?}; it can be RemoteInstance or VersionBlock")),
    };
    if !readable {
        needs.push(Need::UnvalidatedObjects);
    }
    Ok(object)
}

fn readable<T: Parts>(object: &Value) -> Result<bool, String> {
    Observed::<T>::read(object.clone()).map(|read| matches!(read, Observed::Readable(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
title: An instance is off until it is switched on
why: Remote access is asked for, never given.
steps:
- step: it is written
  apply:
  - {kind: RemoteInstance, metadata: {name: lake, namespace: homes}, spec: {}}
  facts:
    dns: {a.example: "TXT <verification:homes/lake>"}
  expect:
    routes: {homes/lake: {served: false}}
"#;

    #[test]
    fn a_good_file_is_read_and_completed() {
        let scenario = read_text(GOOD).unwrap();
        let step = &scenario.steps[0];
        assert_eq!(step.apply[0]["apiVersion"], resources::API_VERSION);
        assert_eq!(step.expect.routes.as_ref().unwrap().named.len(), 1);
    }

    /// What stands there, what stands instead, and what the message must name.
    const WRONG: &[(&str, &str, &str)] = &[
        ("why: Remote access is asked for, never given.", "", "why"),
        ("title: An instance is off until it is switched on", "title: ''", "title"),
        ("served: false", "servd: false", "servd"),
        ("routes: {homes/lake: {served: false}}", "{}", "expects nothing"),
        ("routes: {homes/lake:", "routes: {lake:", "\"lake\" is no instance"),
        ("  expect:\n    routes: {homes/lake: {served: false}}\n", "", "expect"),
        ("{homes/lake: {served: false}}", "{others: none}", "others"),
        ("step: it is written", "step: ''", "in words"),
        ("kind: RemoteInstance,", "kind: RemotInstance,", "RemotInstance"),
        ("spec: {}", "spec: {}, status: {}", "never applied"),
        ("spec: {}", "spec: {tunels: 1}", "unvalidated-objects"),
        ("namespace: homes", "namespace: homes, creationTimestamp: '2026-01-01T00:00:00Z'", "creation-times"),
        ("\"TXT <verification:homes/lake>\"", "TEXT x", "TXT value"),
        ("\"TXT <verification:homes/lake>\"", "\"TXT <verification:lake>\"", "verification:lake"),
        ("why:", "installation: {domain: not_a_domain}\nwhy:", "installation"),
        ("why:", "installation: {doman: ui.example.com}\nwhy:", "doman"),
    ];

    #[test]
    fn what_is_wrong_is_named() {
        for (there, instead, named) in WRONG {
            assert!(GOOD.contains(there), "{there}");
            let problem = read_text(&GOOD.replace(there, instead)).unwrap_err();
            assert!(problem.contains(named), "{instead}: {problem}");
        }
    }
}
