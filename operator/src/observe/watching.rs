//! A watch that goes on whatever happens: its events go into the cache.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Resource};
use tokio::time::sleep;

use super::cache::{Change, Set};
use super::listed::{Kind, Listed};
use super::{Shared, State};
use crate::backoff::Backoff;
use crate::trouble::{Trouble, kind};

/// The shortest and the longest wait after an error. One process waits, not one for each object, so that the API server
/// has nothing to fear from a short one, and what changed meanwhile is seen soon after it is back.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// One watch: of a kind, everywhere or in a namespace.
pub(super) struct Watching<T: Kind> {
    pub(super) api: Api<Listed<T>>,
    /// The namespace it sees; `None` means all of them.
    pub(super) namespace: Option<String>,
    pub(super) shared: Arc<Shared>,
    /// Its objects among all.
    pub(super) set: fn(&mut State) -> &mut Set<T>,
    /// What its keys begin with in a namespace.
    pub(super) sees: fn(&T::Key, &str) -> bool,
    /// What is told when it fails.
    pub(super) what: &'static str,
    /// Which of all watches it is.
    pub(super) number: usize,
}

impl<T: Kind> Watching<T>
where
    Listed<T>: Resource<DynamicType = ()>,
{
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut streaming = true;
        let mut trouble = Trouble::with(self.what);
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        loop {
            let config = if streaming { Config::default().streaming_lists() } else { Config::default() };
            let mut events = std::pin::pin!(watcher(self.api.clone(), config));
            let mut listing = Vec::new();
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        trouble.over();
                        backoff.reset();
                        self.take(event, &mut listing);
                    }
                    Err(error) if streaming && knows_no_streaming(&error) => {
                        tracing::info!("this API server does not stream lists: they are read in pages");
                        streaming = false;
                        break;
                    }
                    Err(error) => {
                        self.shared.count_error();
                        trouble.tell(&kind_of(&error), &error);
                        sleep(backoff.wait()).await;
                    }
                }
            }
        }
    }

    fn take(&self, event: Event<Listed<T>>, listing: &mut Vec<super::cache::Entry<T>>) {
        match event {
            // What was listed of a list that broke off is worth nothing.
            Event::Init => listing.clear(),
            Event::InitApply(object) => {
                listing.extend(self.shared.with(|state| (self.set)(state).read(object)));
            }
            Event::InitDone => {
                let listed = std::mem::take(listing);
                let sees = |key: &T::Key| {
                    self.namespace.as_ref().is_none_or(|namespace| (self.sees)(key, namespace))
                };
                self.shared.change(|state| (self.set)(state).replace(listed, sees));
                self.shared.listed(self.number);
            }
            Event::Apply(object) => self.shared.change(|state| {
                let set = (self.set)(state);
                set.read(object).map_or(Change::Nothing, |entry| set.put(entry))
            }),
            Event::Delete(object) => self
                .shared
                .change(|state| object.key().map_or(Change::Nothing, |key| (self.set)(state).remove(&key))),
        }
    }
}

/// Is it the answer of an API server without streaming lists? They came with 1.32, are off in 1.33, and can be switched
/// off.
fn knows_no_streaming(error: &Error) -> bool {
    let Error::WatchStartFailed(kube::Error::Api(status)) = error else { return false };
    matches!(status.code, 400 | 422) && status.message.contains("sendInitialEvents")
}

fn kind_of(error: &Error) -> String {
    match error {
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => {
            kind(error)
        }
        Error::WatchError(status) => format!("{} {}", status.code, status.reason),
        Error::NoResourceVersion => "version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_api_server_without_streaming_lists_is_known_by_its_answer() {
        let refused = |code, message: &str| {
            let status = Status { code, message: message.to_owned(), ..Status::default() };
            Error::WatchStartFailed(kube::Error::Api(Box::new(status)))
        };
        let told = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        assert!(knows_no_streaming(&refused(422, told)));
        assert!(!knows_no_streaming(&refused(422, "fieldSelector is invalid")));
        assert!(!knows_no_streaming(&refused(503, told)));
    }
}
