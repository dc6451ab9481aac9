//! Labels that were given up, kept in a `ConfigMap`: a new leader must not hand a quarantined name to somebody else.

use std::collections::BTreeMap;
use std::time::Duration;

use imbl::OrdMap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, core::ObjectMeta};
use planner::ReleasedLabel;
use tokio::time::timeout;

use crate::names::{FIELD_MANAGER, INSTALLATION_LABEL, Names};

/// The member that holds them.
const KEY: &str = "labels.json";
/// Routes wait for it, so it may not take long.
const WITHIN: Duration = Duration::from_secs(3);
/// A `ConfigMap` takes 1 MiB; one label is some 150 bytes. Above this the oldest are forgotten first.
const MOST: usize = 6_000;

/// Why they could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ReleasedError {
    /// The API server says no.
    #[error("the ConfigMap {name}: {source}")]
    Api {
        /// Which one.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// The API server says nothing.
    #[error("the ConfigMap {name}: the API server does not answer")]
    NoAnswer {
        /// Which one.
        name: String,
    },
    /// Somebody wrote nonsense into it.
    #[error(
        "the ConfigMap {name}: {KEY}: {source}; mend it, or delete the ConfigMap: names given up lately are then free at once"
    )]
    Nonsense {
        /// Which one.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// The labels, and what the API server has of them.
#[derive(Debug)]
pub struct Released {
    api: Api<ConfigMap>,
    names: Names,
    labels: OrdMap<String, ReleasedLabel>,
    /// Does the API server have them?
    is_kept: bool,
}

impl Released {
    /// Reads what a leader before has kept.
    pub async fn read(client: Client, names: &Names) -> Result<Self, ReleasedError> {
        let api: Api<ConfigMap> = Api::namespaced(client, &names.namespace);
        let name = names.released();
        let found = api.get_opt(&name).await;
        let found = found.map_err(|source| ReleasedError::Api { name: name.clone(), source })?;
        let text = found.and_then(|map| map.data?.remove(KEY));
        let labels: BTreeMap<String, ReleasedLabel> = match text {
            None => BTreeMap::new(),
            Some(text) => {
                serde_json::from_str(&text).map_err(|source| ReleasedError::Nonsense { name, source })?
            }
        };
        Ok(Self { api, names: names.clone(), labels: labels.into_iter().collect(), is_kept: true })
    }

    /// What a plan has to know.
    pub fn labels(&self) -> &OrdMap<String, ReleasedLabel> {
        &self.labels
    }

    /// Keeps what a plan says, before its statuses tell anybody. What cannot be written is known here all the same, and
    /// written with the next plan.
    pub async fn keep(&mut self, planned: &OrdMap<String, ReleasedLabel>) -> Result<(), ReleasedError> {
        if !self.labels.ptr_eq(planned) && self.labels != *planned {
            self.labels.clone_from(planned);
            self.is_kept = false;
        }
        if self.is_kept {
            return Ok(());
        }
        let name = self.names.released();
        let kept: BTreeMap<_, _> = newest(planned).collect();
        let text = serde_json::to_string(&kept)
            .map_err(|source| ReleasedError::Nonsense { name: name.clone(), source })?;
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some([(INSTALLATION_LABEL.to_owned(), self.names.installation.clone())].into()),
                ..ObjectMeta::default()
            },
            data: Some([(KEY.to_owned(), text)].into()),
            ..ConfigMap::default()
        };
        let apply = PatchParams::apply(FIELD_MANAGER).force();
        match timeout(WITHIN, self.api.patch(&name, &apply, &Patch::Apply(&map))).await {
            Ok(Ok(_)) => {
                self.is_kept = true;
                Ok(())
            }
            Ok(Err(source)) => Err(ReleasedError::Api { name, source }),
            Err(_) => Err(ReleasedError::NoAnswer { name }),
        }
    }
}

fn newest(labels: &OrdMap<String, ReleasedLabel>) -> impl Iterator<Item = (&String, &ReleasedLabel)> {
    let mut times: Vec<_> = labels.values().map(|label| label.at).collect();
    times.sort_unstable();
    let since = times.len().checked_sub(MOST).and_then(|over| times.get(over).copied());
    labels.iter().filter(move |(_, label)| since.is_none_or(|since| label.at >= since)).take(MOST)
}

#[cfg(test)]
mod tests {
    use planner::Timestamp;

    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let label = |at: i64| ReleasedLabel { by: "homes/lake".parse().unwrap(), at: Timestamp(at) };
        let few: OrdMap<_, _> = (0..10).map(|at| (format!("l{at}"), label(at))).collect();
        assert_eq!(newest(&few).count(), 10);
        let most = i64::try_from(MOST).unwrap();
        let many: OrdMap<_, _> = (0..most + 10).map(|at| (format!("l{at}"), label(at))).collect();
        let kept: Vec<_> = newest(&many).map(|(_, label)| label.at.0).collect();
        assert_eq!((kept.len(), kept.iter().min()), (MOST, Some(&10)));
    }
}
