//! The settings as they are in the cluster: a watch of one `ConfigMap`. What was read last and made sense stays in force
//! when somebody writes nonsense into it, or deletes it.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource as _};
use tokio::sync::watch;

use super::settings::{InstallationSettings, SettingsError};
use super::task::Task;
use crate::names::Names;

/// The settings in force, and what is wrong with those in the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    /// Was the cluster's answer heard?
    heard: bool,
    in_force: Option<Arc<InstallationSettings>>,
    problem: Option<SettingsProblem>,
}

/// What is wrong with the settings in the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingsProblem {
    /// What is wrong.
    pub error: SettingsError,
    /// The `ConfigMap`, for events.
    pub regarding: ObjectReference,
}

/// Watches the settings.
#[derive(Debug)]
pub struct SettingsSource {
    known: Arc<Mutex<Known>>,
    changes: watch::Receiver<u64>,
    _task: Task,
}

impl SettingsSource {
    /// Begins to watch.
    pub fn start(client: Client, names: &Names) -> Self {
        let (told, changes) = watch::channel(0);
        let known = Arc::new(Mutex::new(Known::default()));
        let task = Task::start(follow(client, names.clone(), Arc::clone(&known), told));
        Self { known, changes, _task: task }
    }

    /// The settings in force; none until some made sense.
    pub fn settings(&self) -> Option<Arc<InstallationSettings>> {
        self.lock().in_force.clone()
    }

    /// What is wrong with those in the cluster, if they are not in force.
    pub fn problem(&self) -> Option<SettingsProblem> {
        self.lock().problem.clone()
    }

    /// Goes up with each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Waits until the cluster's settings, or their absence, were seen.
    pub async fn synced(&self) {
        let mut changes = self.subscribe();
        // It cannot be gone: the task that tells lives in `self`.
        while !self.lock().heard && changes.changed().await.is_ok() {}
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(client: Client, names: Names, known: Arc<Mutex<Known>>, told: watch::Sender<u64>) {
    let api: Api<ConfigMap> = Api::namespaced(client, &names.namespace);
    let mut stream = std::pin::pin!(watcher::watch_object(api, &names.settings()).default_backoff());
    while let Some(seen) = stream.next().await {
        let map = match seen {
            Ok(map) => map,
            Err(error) => {
                tracing::warn!(%error, "the installation's settings cannot be watched; those in force stay");
                continue;
            }
        };
        let read = read(map.as_ref(), &names);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let next = settle(&known, read, || reference(map.as_ref(), &names));
        if *known == next {
            continue;
        }
        if let Some(problem) = &next.problem {
            let in_force = next.in_force.is_some();
            tracing::error!(error = %problem.error, in_force, "the installation's settings are not taken");
        }
        *known = next;
        drop(known);
        told.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn read(map: Option<&ConfigMap>, names: &Names) -> Result<InstallationSettings, SettingsError> {
    let nothing =
        || SettingsError::NoConfigMap { namespace: names.namespace.clone(), name: names.settings() };
    InstallationSettings::of_data(map.ok_or_else(nothing)?.data.as_ref())
}

/// What is in force after something was read.
fn settle(
    known: &Known,
    read: Result<InstallationSettings, SettingsError>,
    regarding: impl FnOnce() -> ObjectReference,
) -> Known {
    match read {
        // The same settings stay the same object: whoever compares need not look inside.
        Ok(settings) => {
            let same = known.in_force.clone().filter(|in_force| **in_force == settings);
            Known { heard: true, in_force: Some(same.unwrap_or_else(|| Arc::new(settings))), problem: None }
        }
        Err(error) => Known {
            heard: true,
            in_force: known.in_force.clone(),
            problem: Some(SettingsProblem { error, regarding: regarding() }),
        },
    }
}

pub(crate) fn reference(map: Option<&ConfigMap>, names: &Names) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("ConfigMap".to_owned()),
        name: Some(names.settings()),
        namespace: Some(names.namespace.clone()),
        uid: map.and_then(|map| map.meta().uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_settings_stay_in_force() {
        let names = Names { namespace: "latchkey".to_owned(), installation: "default".to_owned() };
        let reads = |text: &str| InstallationSettings::read(text);
        let regarding = || reference(None, &names);
        let good = "spec: {domain: ui.example.com}\nproxies: {image: one}";
        let start = settle(&Known::default(), read(None, &names), regarding);
        let told = start.problem.as_ref().map(|problem| problem.error.to_string()).unwrap();
        assert!(start.in_force.is_none() && told.contains("latchkey/latchkey-default"), "{told}");
        let first = settle(&start, reads(good), regarding);
        assert!(first.problem.is_none());
        let broken = settle(&first, reads("spec: {}"), regarding);
        assert!(broken.problem.is_some());
        assert_eq!(broken.in_force, first.in_force);
        let mended = settle(&broken, reads(good), regarding);
        assert!(
            Arc::ptr_eq(&mended.in_force.unwrap(), &first.in_force.unwrap()),
            "the same settings are one object"
        );
    }
}
