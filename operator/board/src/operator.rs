//! What only an operator knows: who leads, proxies, how far a roll is, and how many instances there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An operator, and what it sees. A follower sees less than the leader.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorPart {
    /// The installation.
    pub installation: String,
    /// Where its operator and proxies are.
    pub namespace: String,
    /// Who answers: the name of its pod.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// Does it lead?
    pub role: Role,
    /// May it be counted on, and why (not)? In one line.
    pub ready: bool,
    /// Why it is ready or not.
    pub told: String,
    /// How many proxies there should be; none where the operator leaves them to somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxies_wanted: Option<u32>,
    /// The proxies, by name.
    pub proxies: Vec<ProxyRow>,
    /// How far a roll of the proxies is, as far as this operator rolls them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll: Option<Roll>,
    /// Instances, counted.
    pub counts: Counts,
    /// There are more rows than were told: ask again for those after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Leader or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "is")]
pub enum Role {
    /// It leads.
    Leader {
        /// In this term.
        term: u64,
    },
    /// It waits for its turn, and knows little.
    Follower {
        /// Who leads, as far as it knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leader: Option<String>,
    },
}

impl Default for Role {
    fn default() -> Self {
        Self::Follower { leader: None }
    }
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyRow {
    /// Its pod's name.
    pub name: String,
    /// Are visitors sent to it?
    pub ready: bool,
    /// The version of its program, where it is attached to the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The revision of the routes in force there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Tunnels it holds.
    pub tunnels: u32,
    /// For how long there have been newer routes than those in force there, in seconds.
    pub lag_seconds: f64,
    /// What is wrong with its pod, if time alone does not mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How far a roll is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Roll {
    /// Where it is.
    pub phase: Phase,
    /// What it waits for, or why it is paused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Where a roll is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Every proxy is as it shall be.
    #[default]
    Idle,
    /// Proxies are replaced, one after the other.
    Rolling,
    /// A new one does worse, so nothing more is replaced.
    Paused,
}

/// Instances, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All of the installation.
    pub instances: u64,
    /// Those that are ready.
    pub ready: u64,
    /// Those whose tunnel is up at this moment.
    pub connected: u64,
    /// Why the others are not ready: how many for each reason.
    pub not_ready: BTreeMap<String, u64>,
}

impl OperatorPart {
    /// Does it lead, with every proxy and instance ready and no roll paused? A follower cannot say.
    pub fn is_well(&self) -> bool {
        let wanted = self.proxies_wanted.unwrap_or_default();
        let ready = self.proxies.iter().filter(|proxy| proxy.ready).count();
        matches!(self.role, Role::Leader { .. })
            && self.ready
            && self.proxies.iter().all(|proxy| proxy.ready)
            && u32::try_from(ready).is_ok_and(|ready| ready >= wanted)
            && self.roll.as_ref().is_none_or(|roll| roll.phase != Phase::Paused)
            && self.counts.ready == self.counts.instances
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> OperatorPart {
        let proxy = |name: &str| ProxyRow { name: name.to_owned(), ready: true, ..ProxyRow::default() };
        OperatorPart {
            role: Role::Leader { term: 3 },
            ready: true,
            proxies_wanted: Some(2),
            proxies: vec![proxy("a-0"), proxy("a-1")],
            roll: Some(Roll::default()),
            counts: Counts { instances: 2, ready: 2, ..Counts::default() },
            ..OperatorPart::default()
        }
    }

    type Change = fn(&mut OperatorPart);

    #[test]
    fn one_thing_that_is_not_well_is_enough() {
        assert!(well().is_well());
        let changes: [(&str, Change); 7] = [
            ("a follower", |part| part.role = Role::default()),
            ("nothing published", |part| part.ready = false),
            ("a proxy is missing", |part| part.proxies.truncate(1)),
            ("a proxy is not ready", |part| part.proxies[0].ready = false),
            ("one too many, not ready", |part| part.proxies.push(ProxyRow::default())),
            ("a paused roll", |part| part.roll = Some(Roll { phase: Phase::Paused, reason: String::new() })),
            ("an instance is not ready", |part| part.counts.instances = 3),
        ];
        for (what, change) in changes {
            let mut part = well();
            change(&mut part);
            assert!(!part.is_well(), "{what}");
        }
        let rolling = Some(Roll { phase: Phase::Rolling, reason: "x".to_owned() });
        assert!(OperatorPart { roll: rolling, ..well() }.is_well(), "nothing is wrong with that");
    }

    #[test]
    fn the_document_reads_well() {
        let mut part = well();
        part.proxies.clear();
        let json = serde_json::to_value(&part).unwrap();
        assert_eq!(json["role"], serde_json::json!({"is": "leader", "term": 3}));
        assert_eq!(json["roll"], serde_json::json!({"phase": "idle"}));
        assert_eq!(serde_json::from_value::<OperatorPart>(json).unwrap(), part);
    }
}
