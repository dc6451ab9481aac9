//! A watch that goes on whatever happens: a list first, and then every change of it goes into the cache.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use http::StatusCode;
use kube::api::{WatchEvent, WatchParams};
use kube::core::Status;
use kube::{Api, Resource};
use tokio::time::{Instant, sleep, timeout};

use super::cache::{Change, Set};
use super::listed::{Kind, Listed};
use super::listing::{ListError, Lister};
use super::{Shared, State};
use crate::backoff::Backoff;
use crate::trouble::{Trouble, kind};

/// The shortest and the longest wait after an error. One process waits, not one for each object, so that the API server
/// has nothing to fear from a short one, and what changed meanwhile is seen soon after it is back.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The API server ends a watch after so long, in seconds. One that says nothing for longer has been lost on its way.
const LASTS: u32 = 290;
const SILENT: Duration = Duration::from_secs(LASTS as u64 + 5);
/// One that ends sooner is begun anew only after a wait.
const SHORTEST: Duration = Duration::from_secs(1);

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

/// Why a watch goes on no more.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("{} {}: {}", .0.code, .0.reason, .0.message)]
    Told(Box<Status>),
    #[error("an object without a version")]
    NoVersion,
    #[error("it ends as soon as it has begun")]
    Ends,
}

impl WatchError {
    /// Is what changed since the last event forgotten? Then only a list tells it.
    fn needs_list(&self) -> bool {
        match self {
            Self::Client(kube::Error::Api(status)) | Self::Told(status) => status.code == StatusCode::GONE,
            Self::Client(_) | Self::Ends => false,
            Self::NoVersion => true,
        }
    }

    fn kind(&self) -> String {
        match self {
            Self::Client(error) => kind(error),
            Self::Told(status) => format!("{} {}", status.code, status.reason),
            Self::NoVersion => "version".to_owned(),
            Self::Ends => "end".to_owned(),
        }
    }
}

impl<T: Kind> Watching<T>
where
    Listed<T>: Resource<DynamicType = ()>,
{
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut trouble = Trouble::with(self.what);
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        let mut lister = Lister::new(&self.api);
        // What was seen last; `None`: there has to be a list.
        let mut seen = None;
        loop {
            let (kind, error): (_, Box<dyn std::error::Error + Send>) = match &mut seen {
                None => match self.list(&mut lister).await {
                    Ok(version) => {
                        seen = Some(version);
                        trouble.over();
                        backoff.reset();
                        continue;
                    }
                    Err(error) => (list_kind(&error), Box::new(error)),
                },
                Some(version) => {
                    let well = || {
                        trouble.over();
                        backoff.reset();
                    };
                    match self.watch(version, well).await {
                        Ok(()) => continue,
                        Err(error) => {
                            if error.needs_list() {
                                seen = None;
                            }
                            (error.kind(), Box::new(error))
                        }
                    }
                }
            };
            self.shared.count_error();
            trouble.tell(&kind, &error);
            sleep(backoff.wait()).await;
        }
    }

    /// Everything there is. What was listed of a list that broke off is worth nothing.
    async fn list(&self, lister: &mut Lister<T>) -> Result<String, ListError> {
        let mut found = Vec::new();
        let version = lister
            .list(|object| found.extend(self.shared.with(|state| (self.set)(state).read(object))))
            .await?;
        let sees = |key: &T::Key| self.namespace.as_ref().is_none_or(|namespace| (self.sees)(key, namespace));
        self.shared.change(|state| (self.set)(state).replace(found, sees));
        self.shared.listed(self.number);
        Ok(version)
    }

    /// Every change since a version, until the API server ends the watch, which it does every few minutes.
    async fn watch(&self, version: &mut String, mut well: impl FnMut()) -> Result<(), WatchError> {
        let began = Instant::now();
        let parameters = WatchParams::default().timeout(LASTS);
        let events = self.api.watch(&parameters, version).await?;
        let mut events = std::pin::pin!(events);
        while let Ok(event) = timeout(SILENT, events.try_next()).await {
            let event = match event {
                // Nobody else's changes wait for one that cannot be read.
                Err(error) if is_nonsense(&error) => {
                    self.shared.count_error();
                    tracing::warn!("cannot read an event, which is passed over ({}): {error}", self.what);
                    continue;
                }
                event => event?,
            };
            let Some(event) = event else { break };
            let seen = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => self.changed(object),
                WatchEvent::Deleted(object) => self.deleted(&object),
                WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(WatchError::Told(status)),
            };
            *version = seen.filter(|seen| !seen.is_empty()).ok_or(WatchError::NoVersion)?;
            well();
        }
        if began.elapsed() < SHORTEST { Err(WatchError::Ends) } else { Ok(()) }
    }

    fn changed(&self, object: Listed<T>) -> Option<String> {
        let version = object.meta().resource_version.clone();
        self.shared.change(|state| {
            let set = (self.set)(state);
            set.read(object).map_or(Change::Nothing, |entry| set.put(entry))
        });
        version
    }

    fn deleted(&self, object: &Listed<T>) -> Option<String> {
        self.shared
            .change(|state| object.key().map_or(Change::Nothing, |key| (self.set)(state).remove(&key)));
        object.meta().resource_version.clone()
    }
}

/// Was an event read that is none? It may be told as an answer of the API server in which nothing stands.
fn is_nonsense(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0,
        _ => false,
    }
}

fn list_kind(error: &ListError) -> String {
    match error {
        ListError::Client(error) => kind(error),
        ListError::BrokeOff(_) | ListError::Silent => "connection".to_owned(),
        ListError::TooLong(_) | ListError::Nonsense(_) | ListError::NoVersion => "answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::Ordering;

    use futures_util::StreamExt as _;
    use http::{Request, Response};
    use http_body_util::StreamBody;
    use hyper::body::{Bytes, Frame};
    use kube::Client;
    use kube::client::Body;
    use resources::RemoteInstance;
    use serde_json::json;
    use tower::service_fn;

    use super::super::listed::tests::instance;
    use super::*;

    #[tokio::test]
    async fn an_event_that_cannot_be_read_keeps_nobody_from_seeing_the_next() {
        let service = service_fn(|request: Request<Body>| {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch"));
            let text = if is_watch {
                let lake = instance("lake", 13, &json!({}), &json!({}));
                // In the order in which an API server writes it.
                let event = |object| format!("{{\"type\": \"ADDED\", \"object\": {object}}}\n");
                [json!({"spec": 7}), lake].map(event).concat()
            } else {
                json!({"items": [], "metadata": {"resourceVersion": "12"}}).to_string()
            };
            let said = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(text)))]);
            // A list ends, a watch goes on.
            let rest = futures_util::stream::pending().take(usize::from(is_watch));
            std::future::ready(Ok::<_, Infallible>(Response::new(StreamBody::new(said.chain(rest)))))
        });
        let shared = Arc::new(Shared::waiting_for(1, &"latchkey-operator-status/here".into()));
        let watching = Watching::<RemoteInstance> {
            api: Api::all(Client::new(service, "default")),
            namespace: None,
            shared: Arc::clone(&shared),
            set: |state| &mut state.instances,
            sees: |_, _| true,
            what: "watch",
            number: 0,
        };
        let mut changed = shared.objects.subscribe();
        let seen =
            changed.wait_for(|_| shared.with(|state| state.instances.objects.contains_key("homes/lake")));
        let looking = timeout(Duration::from_secs(10), seen);
        tokio::select! {
            () = watching.run() => unreachable!(),
            seen = looking => assert!(seen.is_ok(), "the lake is not seen"),
        }
        assert_eq!(shared.errors.load(Ordering::Relaxed), 1);
    }
}
