//! The proxies as Kubernetes objects: made from the installation's settings, kept as they shall be, and rolled one after
//! the other.
//!
//! [`settings_source`] (the `ConfigMap`) -> `objects` (pure) -> `keep` (applies what differs); [`pods`] and the link's view
//! of the proxies -> [`roll`] (decides, pure) -> [`roll_shell`] (does it).
//!
//! Nothing that is not wanted any more is deleted: the objects have fixed names, so there is always the same number of
//! them, and whatever else wears the installation's label was made by somebody else.

pub mod amount;
mod difference;
mod disruption;
mod keep;
pub mod labels;
#[cfg(test)]
mod manifest_tests;
mod network_policy;
mod objects;
pub mod pods;
pub mod proxy_settings;
pub mod roll;
pub mod roll_shell;
mod service_account;
mod services;
pub mod settings;
pub mod settings_source;
mod stateful_set;
pub mod stats;
mod task;
mod tell;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use kube::Client;
use tokio::sync::watch;

use crate::names::Names;
use keep::Keeper;
use pods::ProxyPods;
use roll_shell::{Clock, ProxyView, RollShell, RollState};
use settings_source::SettingsSource;
use stats::WorkloadStats;
use task::Task;
use tell::{Teller, Weight};

/// The proxies' workload, kept and rolled for as long as this lives. Only the leader has one.
#[derive(Debug)]
pub struct Workload {
    keeper: Arc<Keeper>,
    state: watch::Receiver<RollState>,
    stats: Arc<WorkloadStats>,
    _tasks: [Task; 2],
}

impl Workload {
    /// Begins. `identity` is who events are from.
    pub fn start(
        client: &Client,
        names: &Names,
        identity: &str,
        settings: &Arc<SettingsSource>,
        pods: &Arc<ProxyPods>,
        view: Arc<dyn ProxyView>,
    ) -> Self {
        Self::start_at(client, names, identity, settings, pods, view, Arc::new(Instant::now))
    }

    /// The same with a clock of the caller's.
    pub fn start_at(
        client: &Client,
        names: &Names,
        identity: &str,
        settings: &Arc<SettingsSource>,
        pods: &Arc<ProxyPods>,
        view: Arc<dyn ProxyView>,
        clock: Clock,
    ) -> Self {
        let teller = Teller::new(client.clone(), names, identity);
        let counted = Arc::new(WorkloadStats::default());
        let keeper = Arc::new(Keeper::start(client, names, Arc::clone(settings), Arc::clone(&counted)));
        let (show, state) = watch::channel(RollState::default());
        let shell = RollShell {
            client: client.clone(),
            namespace: names.namespace.clone(),
            settings: Arc::clone(settings),
            pods: Arc::clone(pods),
            keeper: Arc::clone(&keeper),
            view,
            clock,
            teller: teller.clone(),
            stats: Arc::clone(&counted),
            state: show,
        };
        let complaints = complain(Arc::clone(settings), Arc::clone(&keeper), names.clone(), teller);
        let tasks = [Task::start(shell.run()), Task::start(complaints)];
        Self { keeper, state, stats: counted, _tasks: tasks }
    }

    /// How far a roll is; tells when that changes.
    pub fn roll(&self) -> watch::Receiver<RollState> {
        self.state.clone()
    }

    /// Objects that cannot be made as they shall be, and why.
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.keeper.problems()
    }

    /// What was done so far.
    pub fn stats(&self) -> &WorkloadStats {
        &self.stats
    }
}

/// Tells events of settings that are not taken and of objects that cannot be made, once each.
async fn complain(settings: Arc<SettingsSource>, keeper: Arc<Keeper>, names: Names, teller: Teller) {
    let mut settings_changed = settings.subscribe();
    let mut objects_changed = keeper.subscribe();
    let mut told_problem = None;
    let mut told_problems = BTreeMap::new();
    loop {
        settings_changed.mark_unchanged();
        objects_changed.mark_unchanged();
        let problem = settings.problem();
        if problem != told_problem {
            if let Some(problem) = &problem {
                let note = problem.error.to_string();
                teller.tell(&problem.regarding, Weight::Warning, "SettingsRefused", "Read", &note).await;
            }
            told_problem = problem;
        }
        let problems = keeper.problems();
        for (object, problem) in &problems {
            if told_problems.get(object) != Some(problem) {
                let note = format!("{object}: {problem}");
                let regarding = settings_source::reference(None, &names);
                teller.tell(&regarding, Weight::Warning, "NotApplied", "Apply", &note).await;
            }
        }
        told_problems = problems;
        let gone = tokio::select! {
            changed = settings_changed.changed() => changed.is_err(),
            changed = objects_changed.changed() => changed.is_err(),
        };
        if gone {
            return;
        }
    }
}
