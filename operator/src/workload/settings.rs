//! An installation's settings, as its `ConfigMap` holds them: a document with two members, `spec` (what the planner
//! decides by) and `proxies` (what the workload is made from).
//!
//! ```yaml
//! data:
//!   installation.yaml: |
//!     spec:
//!       domain: ui.example.com
//!     proxies:
//!       image: registry.example.com/latchkey-proxy:1.0.0
//! ```
//!
//! A document with a mistake is not taken at all, and what is wrong with it names the member.

use std::collections::BTreeMap;
use std::time::Duration;

use resources::{Checked, InstallationSpec, did_you_mean, is_label, is_object_name};
use serde::Deserialize;

use super::amount::Amount;
use super::proxy_settings::{ProxySettings, RollSettings, Toleration};
use super::stateful_set::{FOREIGN_ARGUMENTS, OWN_ARGUMENTS};

/// The member of the `ConfigMap` that holds the document.
pub const KEY: &str = "installation.yaml";

/// Most replicas: each of them holds the whole table, and the operator talks to each.
pub const MAX_REPLICAS: i32 = 64;
/// Longest time that visitors may have to finish.
const MAX_GRACE: u32 = 3600;
/// Longest time that a roll may wait for anything.
const MAX_ROLL_WAIT: u32 = 24 * 3600;
/// Most further arguments.
const MAX_ARGUMENTS: usize = 64;
/// Longest text that is not bounded otherwise.
const MAX_TEXT: usize = 1024;

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallationSettings {
    /// What the planner decides by.
    pub spec: InstallationSpec,
    /// What the workload is made from.
    pub proxies: ProxySettings,
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Nothing to read.
    #[error(
        "there is no ConfigMap {namespace}/{name}; it must have the member {KEY} with `spec` and `proxies`"
    )]
    NoConfigMap {
        /// Where it should be.
        namespace: String,
        /// What it should be called.
        name: String,
    },
    /// A `ConfigMap` without the document.
    #[error("the member {KEY} is missing; it must hold `spec` and `proxies`")]
    NoDocument,
    /// Not YAML.
    #[error("{KEY} is not YAML: {0}")]
    Syntax(String),
    /// A member is wrong.
    #[error("{KEY}: {path}: {problem}{}", .help.as_ref().map(|help| format!("; {help}")).unwrap_or_default())]
    Member {
        /// Which, e.g. `proxies.replicas`.
        path: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        help: Option<String>,
    },
}

impl InstallationSettings {
    /// Reads and checks a document.
    pub fn read(document: &str) -> Result<Self, SettingsError> {
        let value: serde_json::Value =
            serde_yaml::from_str(document).map_err(|error| SettingsError::Syntax(error.to_string()))?;
        let settings: Self = serde_path_to_error::deserialize(value)
            .map_err(|error| told(&error.path().to_string(), &error.into_inner().to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    /// Reads the document of a `ConfigMap`.
    pub fn of_data(data: Option<&BTreeMap<String, String>>) -> Result<Self, SettingsError> {
        let document = data.and_then(|data| data.get(KEY)).ok_or(SettingsError::NoDocument)?;
        Self::read(document)
    }

    fn check(&self) -> Result<(), SettingsError> {
        self.spec.check().map_err(|wrong| member(wrong.path, wrong.problem))?;
        self.proxies.check()
    }
}

impl ProxySettings {
    fn check(&self) -> Result<(), SettingsError> {
        // A new member must be looked at here: without `..` the build says so.
        let Self {
            image,
            image_pull_policy: _,
            image_pull_secrets,
            replicas,
            grace_seconds,
            arguments,
            resources,
            table_cache,
            node_selector,
            tolerations,
            priority_class_name,
            service,
            scrapers_from,
            roll,
        } = self;
        ensure(
            is_image(image),
            "proxies.image",
            "is no reference of an image: it is empty, too long or has spaces",
        )?;
        for (at, name) in image_pull_secrets.iter().enumerate() {
            object_name(&format!("proxies.imagePullSecrets[{at}]"), name)?;
        }
        range("proxies.replicas", i64::from(*replicas), 1, i64::from(MAX_REPLICAS))?;
        range("proxies.graceSeconds", i64::from(*grace_seconds), 1, i64::from(MAX_GRACE))?;
        ensure(
            arguments.len() <= MAX_ARGUMENTS,
            "proxies.arguments",
            &format!("has more than {MAX_ARGUMENTS} entries"),
        )?;
        for (at, argument) in arguments.iter().enumerate() {
            check_argument(&format!("proxies.arguments[{at}]"), argument)?;
        }
        for (name, request) in &resources.requests {
            let limit = resources.limits.get(name).or_else(|| resources.limits.is_empty().then_some(request));
            let above = limit.is_some_and(|limit| request.exceeds(limit));
            ensure(
                !above,
                &format!("proxies.resources.requests.{name}"),
                "is more than the limit of the same name",
            )?;
        }
        let holds_nothing = !table_cache.exceeds(&Amount::none());
        ensure(!holds_nothing, "proxies.tableCache", "is 0; a proxy keeps its last good table there")?;
        for (key, value) in node_selector {
            ensure(
                is_label_value(value) && !key.is_empty(),
                &format!("proxies.nodeSelector.{key}"),
                "is no value of a label",
            )?;
        }
        for (at, toleration) in tolerations.iter().enumerate() {
            toleration.check(&format!("proxies.tolerations[{at}]"))?;
        }
        if let Some(name) = priority_class_name {
            object_name("proxies.priorityClassName", name)?;
        }
        range("proxies.service.port", i64::from(service.port), 1, i64::from(u16::MAX))?;
        for (at, name) in scrapers_from.iter().enumerate() {
            ensure(is_label(name), &format!("proxies.scrapersFrom[{at}]"), "is no name of a namespace")?;
        }
        roll.check()
    }
}

impl Toleration {
    fn check(&self, path: &str) -> Result<(), SettingsError> {
        let Self { key, operator: _, value, effect: _, toleration_seconds: _ } = self;
        let both = key.is_none() && value.is_some();
        ensure(!both, &format!("{path}.key"), "is missing: without it there can be no value")
    }
}

impl RollSettings {
    fn check(&self) -> Result<(), SettingsError> {
        let Self { ready_within_seconds, tunnels_within_seconds, tunnels_back_percent } = self;
        let most = i64::from(MAX_ROLL_WAIT);
        range("proxies.roll.readyWithinSeconds", i64::from(*ready_within_seconds), 1, most)?;
        range("proxies.roll.tunnelsWithinSeconds", i64::from(*tunnels_within_seconds), 0, most)?;
        range("proxies.roll.tunnelsBackPercent", i64::from(*tunnels_back_percent), 0, 100)
    }

    /// How long a new pod may take to be ready and to have the routes.
    pub fn ready_within(&self) -> Duration {
        Duration::from_secs(u64::from(self.ready_within_seconds))
    }

    /// How long tunnels may take to be back.
    pub fn tunnels_within(&self) -> Duration {
        Duration::from_secs(u64::from(self.tunnels_within_seconds))
    }
}

/// An argument the operator sets itself must not be set twice: the proxy would refuse to start, every one of them.
fn check_argument(path: &str, argument: &str) -> Result<(), SettingsError> {
    let is_option =
        argument.strip_prefix("--").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    ensure(
        is_option && argument.len() <= MAX_TEXT,
        path,
        "is no option: write --NAME=VALUE, each in an entry of its own",
    )?;
    let name = argument.split('=').next().unwrap_or(argument);
    ensure(!OWN_ARGUMENTS.contains(&name), path, &format!("{name} is set by the operator"))?;
    ensure(!FOREIGN_ARGUMENTS.contains(&name), path, &format!("{name} does not go with an operator"))
}

fn is_image(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TEXT && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_label_value(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && text.bytes().all(inside)
        && ends(text.as_bytes().first())
        && ends(text.as_bytes().last())
}

fn object_name(path: &str, text: &str) -> Result<(), SettingsError> {
    ensure(is_object_name(text), path, "is no name of an object")
}

fn range(path: &str, number: i64, least: i64, most: i64) -> Result<(), SettingsError> {
    ensure((least..=most).contains(&number), path, &format!("must be from {least} to {most}, not {number}"))
}

fn ensure(holds: bool, path: &str, problem: &str) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(member(path.to_owned(), problem.to_owned())) }
}

fn member(path: String, problem: String) -> SettingsError {
    SettingsError::Member { path, problem, help: None }
}

/// What serde says, in words for whoever wrote the document.
fn told(path: &str, problem: &str) -> SettingsError {
    let mut words = problem.split('`').skip(1).step_by(2);
    let word = words.next().unwrap_or_default();
    let known: Vec<&str> = words.collect();
    let advice = || {
        did_you_mean(word, known.iter().copied()).or_else(|| Some(format!("known are {}", known.join(", "))))
    };
    if problem.starts_with("unknown field") {
        let help = advice();
        return SettingsError::Member {
            path: path.to_owned(),
            problem: "nobody knows this member".to_owned(),
            help,
        };
    }
    if problem.starts_with("missing field") {
        let path = if path == "." { word.to_owned() } else { format!("{path}.{word}") };
        return member(path, "is missing".to_owned());
    }
    let help = if problem.starts_with("unknown variant") { advice() } else { None };
    let path = if path == "." { "the document".to_owned() } else { path.to_owned() };
    SettingsError::Member { path, problem: problem.to_owned(), help }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
