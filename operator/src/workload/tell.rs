//! Events of the workload's part (events.k8s.io/v1): transitions, with the reason in the note.
//!
//! They are few. Each is an event of its own: counted up under one name, the first note would stay and the second reason be
//! lost. The same words about the same object are not told again for some minutes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::names::{FIELD_MANAGER, Names};

/// Longer notes are refused.
const MAX_NOTE: usize = 1000;
/// How long the same words are not told again.
const SILENCE: Duration = Duration::from_mins(5);
/// Most words that are remembered.
const MAX_TOLD: usize = 256;
/// Longer names of who tells are refused.
const MAX_INSTANCE: usize = 128;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Normal,
    Warning,
}

/// Tells events.
#[derive(Clone)]
pub(crate) struct Teller {
    events: Api<Event>,
    namespace: String,
    instance: String,
    told: Arc<Mutex<HashMap<[String; 3], Instant>>>,
}

impl Teller {
    /// `identity` is who events are from.
    pub(crate) fn new(client: Client, names: &Names, identity: &str) -> Self {
        Self {
            events: Api::namespaced(client, &names.namespace),
            namespace: names.namespace.clone(),
            instance: clipped(identity, MAX_INSTANCE),
            told: Arc::default(),
        }
    }

    /// Tells one. One that is not heard is a line in the log: nothing waits for it.
    pub(crate) async fn tell(
        &self,
        regarding: &ObjectReference,
        weight: Weight,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let name = regarding.name.clone().unwrap_or_default();
        if !self.is_new([name.clone(), reason.to_owned(), note.to_owned()], Instant::now()) {
            return;
        }
        let now = Timestamp::now();
        let type_ = match weight {
            Weight::Normal => "Normal",
            Weight::Warning => "Warning",
        };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:016x}", rand::random::<u64>())),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            regarding: Some(regarding.clone()),
            type_: Some(type_.to_owned()),
            reason: Some(reason.to_owned()),
            action: Some(action.to_owned()),
            note: Some(clipped(note, MAX_NOTE)),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        if let Err(error) = self.events.create(&PostParams::default(), &event).await {
            tracing::warn!(%error, reason, note, "an event could not be told");
        }
    }

    fn is_new(&self, words: [String; 3], now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.saturating_duration_since(*at) < SILENCE);
        if told.contains_key(&words) || told.len() >= MAX_TOLD {
            return false;
        }
        told.insert(words, now);
        true
    }
}

fn clipped(text: &str, most: usize) -> String {
    text.char_indices()
        .take_while(|(at, letter)| at + letter.len_utf8() <= most)
        .map(|(_, letter)| letter)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_cut_between_letters() {
        assert_eq!(clipped("abc", 3), "abc");
        assert_eq!(clipped("abä", 3), "ab");
    }
}
