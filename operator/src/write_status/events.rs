//! News beside objects: `kubectl describe` and `kubectl get events` show them. They may be lost, and must never be a
//! burden: few wait, few a second are written, and the same news count up instead of being told again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as KubeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use planner::{Event, EventKind};
use resources::API_VERSION;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::pace::Pace;
use super::sending::Offer;
use super::series::{Series, Telling};
use super::write::Place;
use super::{Settings, WAITS};
use crate::backoff::Backoff;
use crate::names::FIELD_MANAGER;
use crate::trouble::{Trouble, kind};

/// Who tells.
const CONTROLLER: &str = "latchkey.dev/operator";
/// What was done when there was something to tell: events must say that in one word.
const ACTION: &str = "Reconcile";
/// Most bytes of a sentence that the API server takes.
const MAX_NOTE: usize = 1_024;
/// Most bytes of a word that the API server takes.
const MAX_WORD: usize = 128;
/// Most bytes of an object's name in an event's, so that the whole is a name still.
const MAX_NAME: usize = 200;
/// Where events about objects without a namespace are.
const CLUSTER_WIDE: &str = "default";

/// Something to be told, and the uid of the object that it is about.
#[derive(Debug)]
pub(super) struct News {
    pub(super) event: Event,
    pub(super) uid: Option<String>,
}

/// What became of news.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// Writes what comes, until nothing can come any more.
pub(super) struct Teller {
    client: Client,
    settings: Settings,
    counts: Arc<Counts>,
    series: Series,
}

impl Teller {
    pub(super) fn new(client: Client, settings: Settings, counts: Arc<Counts>) -> Self {
        Self { client, settings, counts, series: Series::default() }
    }

    pub(super) async fn run(mut self, mut news: mpsc::Receiver<News>, mut offers: watch::Receiver<Offer>) {
        let settings = &self.settings;
        let mut pace = Pace::new(settings.events_per_second, settings.events_per_second, Instant::now());
        let mut trouble = Trouble::with("write events");
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        while let Some(news) = news.recv().await {
            while !pace.take(Instant::now()) {
                sleep_until(pace.next(Instant::now())).await;
            }
            may_write(&mut offers).await;
            let told = self.series.tell(&news.event, Instant::now(), || event_name(&news.event));
            loop {
                match self.write(&news, &told).await {
                    Ok(()) => {
                        trouble.over();
                        backoff.reset();
                        self.counts.written.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Err(Unwritten::Later { kind, told }) => {
                        trouble.tell(&kind, &told);
                        sleep(backoff.wait()).await;
                    }
                    Err(Unwritten::Never { kind, told }) => {
                        trouble.tell(&kind, &told);
                        self.series.forget(&news.event);
                        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
    }

    async fn write(&mut self, news: &News, telling: &Telling) -> Result<(), Unwritten> {
        let place = Place::of(&news.event.about);
        let api = Api::namespaced(self.client.clone(), place.namespace.unwrap_or(CLUSTER_WIDE));
        let now = MicroTime(jiff::Timestamp::now());
        let within = self.settings.request_within;
        let name = match telling {
            Telling::New(name) => name.clone(),
            Telling::Again(name, times) => match count_up(&api, name, *times, &now, within).await {
                // Events live for an hour, mostly.
                Err(Unwritten::Never { kind, .. }) if kind.starts_with("404") => {
                    self.series.forget(&news.event);
                    match self.series.tell(&news.event, Instant::now(), || event_name(&news.event)) {
                        Telling::New(name) | Telling::Again(name, _) => name,
                    }
                }
                done => return done,
            },
        };
        let event = kube_event(news, &place, name, now, &self.settings.identity);
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match timeout(within, api.create(&parameters, &event)).await {
            Ok(Ok(_)) => Ok(()),
            // Written by the try before, whose answer was lost.
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Unwritten::timed_out()),
        }
    }
}

/// Waits while nothing is to be written, since proxies come first.
async fn may_write(offers: &mut watch::Receiver<Offer>) {
    loop {
        let not_before = offers.borrow_and_update().not_before;
        let Some(until) = not_before.filter(|until| *until > Instant::now()) else { return };
        // Who offers is gone: this task goes, too.
        if let Ok(Err(_)) = timeout_at(until, offers.changed()).await {
            return;
        }
    }
}

async fn count_up(
    api: &Api<KubeEvent>,
    name: &str,
    times: i32,
    now: &MicroTime,
    within: Duration,
) -> Result<(), Unwritten> {
    let patch = Patch::Merge(json!({"series": {"count": times, "lastObservedTime": now}}));
    match timeout(within, api.patch(name, &PatchParams::default(), &patch)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Unwritten::timed_out()),
    }
}

/// Why an event was not written.
#[derive(Debug)]
enum Unwritten {
    /// It may be later.
    Later { kind: String, told: String },
    /// It never will be: its namespace is about to end, or rights are missing.
    Never { kind: String, told: String },
}

impl Unwritten {
    fn timed_out() -> Self {
        Self::Later { kind: "time-out".to_owned(), told: "no answer from the API server in time".to_owned() }
    }
}

impl From<kube::Error> for Unwritten {
    fn from(error: kube::Error) -> Self {
        let (kind, told) = (kind(&error), error.to_string());
        match &error {
            kube::Error::Api(status) if status.code != 429 && status.code < 500 => Self::Never { kind, told },
            _ => Self::Later { kind, told },
        }
    }
}

fn kube_event(news: &News, place: &Place<'_>, name: String, now: MicroTime, identity: &str) -> KubeEvent {
    let namespace = place.namespace.map(str::to_owned);
    let kind = match news.event.kind {
        EventKind::Normal => "Normal",
        EventKind::Warning => "Warning",
    };
    KubeEvent {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.clone().unwrap_or_else(|| CLUSTER_WIDE.to_owned())),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(place.kind.to_owned()),
            namespace,
            name: Some(place.name.to_owned()),
            uid: news.uid.clone(),
            ..ObjectReference::default()
        }),
        event_time: Some(now),
        type_: Some(kind.to_owned()),
        reason: Some(shortened(&news.event.reason, MAX_WORD)),
        action: Some(ACTION.to_owned()),
        note: Some(shortened(&news.event.message, MAX_NOTE)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(shortened(identity, MAX_WORD)),
        ..KubeEvent::default()
    }
}

/// The object's name, and something that no other event has.
fn event_name(event: &Event) -> String {
    let name = Place::of(&event.about).name;
    let name: String = name.chars().take(MAX_NAME).collect();
    format!("{}.{:016x}", name.trim_end_matches(['.', '-']), rand::random::<u64>())
}

/// At most so many bytes, with a sign where something is missing.
fn shortened(text: &str, most: usize) -> String {
    const SIGN: &str = "…";
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub(SIGN.len()));
    format!("{}{SIGN}", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use planner::Subject;

    use super::*;

    #[test]
    fn texts_are_of_bounded_length_whatever_letters_they_are_of() {
        assert_eq!(shortened("short", 5), "short");
        for letter in ["a", "ü", "家", "🏠"] {
            let text = shortened(&letter.repeat(2_000), MAX_NOTE);
            assert!(text.len() <= MAX_NOTE && text.len() > MAX_NOTE - 8 && text.ends_with('…'), "{letter}");
        }
    }

    #[test]
    fn names_of_events_are_names() {
        let event = |name: String| Event {
            about: Subject::Block(name),
            kind: EventKind::Normal,
            reason: "Readable".to_owned(),
            message: String::new(),
        };
        let long = event_name(&event(format!("{}.{}", "a".repeat(199), "b".repeat(53))));
        assert!(long.len() <= 253 && long.starts_with("aaa") && !long.contains(".."), "{long}");
        let (one, other) = (event_name(&event("core".to_owned())), event_name(&event("core".to_owned())));
        assert!(one.starts_with("core.") && one != other);
    }
}
