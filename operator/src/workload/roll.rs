//! How proxies are replaced when their template changes. Pure: what is seen and the time go in, the next step comes out.
//!
//! The first row that holds decides. An *old* pod was made from another template than the wanted one, a *new* one from it;
//! the *last* one is the pod in whose place a new one was put last.
//!
//! | # | what is seen | what happens |
//! |---|---|---|
//! | 1 | a pod's node is lost for 60 s, and no other pod is in the making | it is deleted by force: nobody else can end it |
//! | 2 | the controller has not seen the wanted template yet | wait |
//! | 3 | nothing old, and no step under way | done |
//! | 4 | a pod is ending | wait: its visitors finish |
//! | 5 | a pod is missing | wait; paused when it was not made in time |
//! | 6 | a new pod is not ready, and time alone does not mend it | paused |
//! | 7 | a new pod is not ready | wait; paused when it is not ready in time |
//! | 8 | the last one does not have the current routes | wait; paused when it does not have them in time |
//! | 9 | the tunnels of the last one are not back | wait; when time is up, go on |
//! | 10 | an eviction was refused a moment ago | wait |
//! | 11 | an old pod is not ready | evict it: it serves nobody. The highest number first |
//! | 12 | an old pod | evict it. The highest number first |
//!
//! A change of the wanted template, a rollback too, begins at row 1 like anything else: pods that are right already are left
//! alone, and what paused the roll is an old pod that is not ready (row 11).
//!
//! Tunnels count wherever they are: an agent whose proxy ends goes to another one and stays there. So "back" means that there
//! are as many of them as before, but for a share of what the pod held.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pods::{Pods, ProxyPod};
use super::proxy_settings::RollSettings;

/// How long a node must be lost before its pod is given up.
const LOST_FOR: Duration = Duration::from_mins(1);
/// How long after a refused eviction the next one is tried.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A proxy, as the operator's link sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxySeen {
    /// Does it have the routes that are in force now?
    pub is_current: bool,
    /// How many tunnels it holds.
    pub tunnels: u64,
}

/// Everything that decides.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// How many pods there shall be.
    pub replicas: u32,
    /// The revision of the wanted template; none until the controller has seen it.
    pub wanted: Option<&'a str>,
    /// The pods.
    pub pods: &'a Pods,
    /// Since when the nodes of pods are lost, by the pods' names.
    pub lost: &'a BTreeMap<String, Instant>,
    /// The proxies that are attached, by the pods' names.
    pub proxies: &'a BTreeMap<String, ProxySeen>,
    /// How patient to be.
    pub settings: RollSettings,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes or the time has come.
    Wait {
        /// For what.
        reason: String,
        /// When to look again at the latest.
        until: Option<Instant>,
    },
    /// Ask the pod to leave, by the Eviction API.
    Evict {
        /// Its name.
        pod: String,
        /// Which one of that name.
        uid: String,
    },
    /// Delete the pod without waiting for its node.
    ForceDelete {
        /// Its name.
        pod: String,
        /// Which one of that name.
        uid: String,
    },
    /// Nothing, until somebody changes the settings, or the pod comes to itself.
    Paused {
        /// Why.
        reason: String,
    },
    /// Nothing is left to do.
    Done,
}

/// A step under way: a pod was asked to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    pod: String,
    uid: String,
    /// When the pod in its place must be right.
    began: Instant,
    /// Since when it is.
    right_since: Option<Instant>,
    /// Tunnels that the pod held, and that there were in all.
    held: u64,
    all: u64,
}

/// What has to be remembered between two looks.
#[derive(Debug, Default)]
pub struct Roll {
    step: Option<Step>,
    /// For how long a new pod is not right, where no step of ours made it: its uid.
    waited: BTreeMap<String, Instant>,
    /// Since when a pod is missing, where no step of ours did it.
    missing_since: Option<Instant>,
    refused: Option<(Instant, String)>,
}

impl Roll {
    /// What to do.
    pub fn next(&mut self, seen: &Seen<'_>, now: Instant) -> Action {
        if let Some(lost) = lost(seen, now) {
            return Action::ForceDelete { pod: lost.name.clone(), uid: lost.uid.clone() };
        }
        let Some(wanted) = seen.wanted else {
            return Action::Wait {
                reason: "the controller has not seen the settings yet".to_owned(),
                until: None,
            };
        };
        let is_old = |pod: &&ProxyPod| pod.revision != wanted;
        self.forget(seen, wanted);
        if self.step.is_none() && !members(seen).any(|pod| is_old(&pod)) {
            *self = Self::default();
            return Action::Done;
        }
        if let Some(wait) = self.until_whole(seen, wanted, now) {
            return wait;
        }
        if let Some(wait) = self.until_current(seen, now) {
            return wait;
        }
        if let Some(wait) = self.until_tunnels_are_back(seen, now) {
            return wait;
        }
        self.step = None;
        self.waited.clear();
        if let Some((again_at, reason)) = self.refused.clone().filter(|(again_at, _)| *again_at > now) {
            return Action::Wait { reason, until: Some(again_at) };
        }
        self.refused = None;
        let mut old: Vec<&ProxyPod> = members(seen).filter(is_old).collect();
        old.sort_by_key(|pod| (pod.ready, std::cmp::Reverse(pod.ordinal)));
        match old.first() {
            Some(pod) => Action::Evict { pod: pod.name.clone(), uid: pod.uid.clone() },
            None => Action::Done,
        }
    }

    /// The pod was asked to leave, and will.
    pub fn evicted(&mut self, pod: &str, uid: &str, seen: &Seen<'_>, now: Instant) {
        self.refused = None;
        self.missing_since = None;
        self.step = Some(Step {
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            began: now,
            right_since: None,
            held: seen.proxies.get(pod).map_or(0, |proxy| proxy.tunnels),
            all: tunnels(seen),
        });
    }

    /// The pod was asked to leave, and must not yet.
    pub fn refused(&mut self, pod: &str, why: &str, now: Instant) {
        self.refused = Some((now + AGAIN_AFTER, format!("{pod} must not be evicted yet: {why}")));
    }

    /// What is remembered of pods that are gone, and a step towards a template that nobody wants any more.
    fn forget(&mut self, seen: &Seen<'_>, wanted: &str) {
        self.waited.retain(|uid, _| seen.pods.values().any(|pod| pod.uid == *uid));
        let is_void = |step: &mut Step| {
            let pod = seen.pods.get(&step.pod);
            pod.is_some_and(|pod| pod.uid != step.uid && pod.revision != wanted)
        };
        self.step.take_if(is_void);
    }

    /// Rows 4 to 7: until there are as many pods as there shall be, and every new one is ready.
    fn until_whole(&mut self, seen: &Seen<'_>, wanted: &str, now: Instant) -> Option<Action> {
        let patience = seen.settings.ready_within();
        let evicted = self.step.as_ref().map(|step| step.uid.as_str());
        // An eviction that was granted is seen as such a moment later.
        if let Some(ending) = members(seen).find(|pod| pod.is_ending || Some(pod.uid.as_str()) == evicted) {
            // Its visitors may take their time; what comes after it gets all of its own.
            if let Some(step) = &mut self.step {
                step.began = now;
            }
            return Some(Action::Wait { reason: format!("{} is ending", ending.name), until: None });
        }
        let began = self.step.as_ref().map(|step| step.began);
        if let Some(missing) =
            (0..seen.replicas).find(|ordinal| members(seen).all(|pod| pod.ordinal != *ordinal))
        {
            let since = began.unwrap_or(*self.missing_since.get_or_insert(now));
            let what = format!("the pod with number {missing}");
            return Some(wait_or_pause(&what, "made", since + patience, patience, now));
        }
        self.missing_since = None;
        let is_unready = |pod: &&ProxyPod| pod.revision == wanted && !pod.ready;
        if let Some(hopeless) = members(seen).filter(is_unready).find(|pod| pod.trouble.is_some()) {
            let trouble = hopeless.trouble.as_deref().unwrap_or_default();
            return Some(Action::Paused { reason: format!("{} does not start: {trouble}", hopeless.name) });
        }
        let unready = members(seen).find(is_unready)?;
        let ours = self.step.as_ref().filter(|step| step.pod == unready.name).map(|step| step.began);
        let since = ours.unwrap_or_else(|| *self.waited.entry(unready.uid.clone()).or_insert(now));
        Some(wait_or_pause(&unready.name, "ready", since + patience, patience, now))
    }

    /// Row 8.
    fn until_current(&self, seen: &Seen<'_>, now: Instant) -> Option<Action> {
        let step = self.step.as_ref()?;
        // Who was scaled away meanwhile need not have anything.
        members(seen).find(|pod| pod.name == step.pod)?;
        let is_current = seen.proxies.get(&step.pod).is_some_and(|proxy| proxy.is_current);
        let patience = seen.settings.ready_within();
        let what = format!("{} with the current routes", step.pod);
        (!is_current).then(|| wait_or_pause(&what, "there", step.began + patience, patience, now))
    }

    /// Row 9.
    fn until_tunnels_are_back(&mut self, seen: &Seen<'_>, now: Instant) -> Option<Action> {
        let step = self.step.as_mut()?;
        let since = *step.right_since.get_or_insert(now);
        let missed = step.all.saturating_sub(tunnels(seen));
        let share = u64::from(100_u32.saturating_sub(seen.settings.tunnels_back_percent));
        let until = since + seen.settings.tunnels_within();
        if missed.saturating_mul(100) <= step.held.saturating_mul(share) || now >= until {
            return None;
        }
        let reason = format!("{missed} of the {} tunnels that {} held are not back", step.held, step.pod);
        Some(Action::Wait { reason, until: Some(until) })
    }
}

/// Row 1. One at a time: if it only seems that nodes are lost, because the control plane is ill, one pod is lost and not
/// all of them.
fn lost<'a>(seen: &Seen<'a>, now: Instant) -> Option<&'a ProxyPod> {
    let is_lost = |pod: &&ProxyPod| {
        seen.lost.get(&pod.name).is_some_and(|since| now.saturating_duration_since(*since) >= LOST_FOR)
    };
    let in_the_making = |pod: &ProxyPod| {
        !pod.ready && !pod.is_ending && pod.trouble.is_none() && !seen.lost.contains_key(&pod.name)
    };
    let count = u32::try_from(members(seen).count()).unwrap_or(u32::MAX);
    let lost = seen.pods.values().filter(is_lost).max_by_key(|pod| pod.ordinal)?;
    (count >= seen.replicas && !members(seen).any(in_the_making)).then_some(lost)
}

/// The pods that shall be there; others are about to be scaled away.
fn members<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a ProxyPod> {
    let replicas = seen.replicas;
    seen.pods.values().filter(move |pod| pod.ordinal < replicas)
}

fn tunnels(seen: &Seen<'_>) -> u64 {
    seen.proxies.values().map(|proxy| proxy.tunnels).fold(0, u64::saturating_add)
}

fn wait_or_pause(what: &str, how: &str, until: Instant, patience: Duration, now: Instant) -> Action {
    if now >= until {
        return Action::Paused { reason: format!("{what} was not {how} within {} s", patience.as_secs()) };
    }
    Action::Wait { reason: format!("{what} is not {how} yet"), until: Some(until) }
}

#[cfg(test)]
#[path = "roll_tests.rs"]
mod tests;
