//! Makes what an instance asks for.
//!
//! The order: the Secret first, then the hash and the end of the request in one edit. Whoever is interrupted in between
//! leaves a bundle that opens nothing, and a request that stands: its owner is told to delete that Secret for another.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::events::EventType;
use resources::Timestamp;
use route_table::InstanceId;
use zeroize::Zeroizing;

use super::request::{Asked, JOIN_ANNOTATION, Step, step};
use super::store::{Meta, Store, secret_name};
use super::tokens::{Entry, NoRandomBytes, TOKENS_ANNOTATION, TokenHash, Tokens, make};
use super::{MAX_TRIES, Settings, bundle, wall_clock};

/// Why a bundle could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Random(#[from] NoRandomBytes),
    #[error("the bundle cannot be written: {0}")]
    Text(#[from] serde_json::Error),
    #[error("the installation's CA is not known yet")]
    NoCa,
    #[error("there is a Secret {0} already: delete it, and the bundle takes its place")]
    Occupied(String),
    #[error("the instance changes too often")]
    Restless,
}

/// A bundle that was written, and for which object of that name.
struct Written {
    hash: TokenHash,
    expires: Timestamp,
    uid: Option<String>,
}

/// Does what an instance asks for; when it is to be looked at again.
pub(super) async fn serve(
    store: &Store,
    settings: &Settings,
    id: &InstanceId,
) -> Result<Option<Timestamp>, MakeError> {
    let mut written: Option<Written> = None;
    for _ in 0..MAX_TRIES {
        let Some(meta) = store.get(id).await? else { return Ok(None) };
        let now = wall_clock();
        let reusable = match step(Asked::from(&meta.metadata), now, settings.token_life) {
            Step::Nothing(at) => return Ok(at),
            Step::Complain(why) => {
                store.tell(&meta, EventType::Warning, "JoinRequestUnknown", why).await;
                return Ok(None);
            }
            Step::Satisfied(until) => {
                if let Some(meta) = store.annotate(id, &meta, [(JOIN_ANNOTATION, None)]).await? {
                    let note = format!(
                        "Nobody has used the bundle of the Secret {} yet; it lets an agent in until {until}. If it is lost, delete \
                         the Secret, remove the annotation {TOKENS_ANNOTATION} and ask again.",
                        secret_name(id)
                    );
                    store.tell(&meta, EventType::Normal, "JoinBundleUnused", note).await;
                    return Ok(None);
                }
                continue;
            }
            Step::Make { reusable } => reusable,
        };
        let ready = match written.take() {
            Some(ready) if ready.uid == meta.uid() => ready,
            _ => write(store, settings, id, &meta, now).await?,
        };
        let mut tokens = Tokens::read(Asked::from(&meta.metadata).tokens, now);
        let expires = ready.expires;
        tokens.add(Entry { hash: ready.hash, expires, reusable, used_by: None });
        let request = (!reusable).then_some((JOIN_ANNOTATION, None));
        let changes = [(TOKENS_ANNOTATION, tokens.write())].into_iter().chain(request);
        let Some(meta) = store.annotate(id, &meta, changes).await? else {
            written = Some(ready);
            continue;
        };
        let who = if reusable { "agents" } else { "one agent" };
        let note = format!(
            "The Secret {} holds a bundle that lets in {who} until {expires}. It is as good as a password.",
            secret_name(id)
        );
        tracing::info!(target: "latchkey::joining", instance = %id, reusable, %expires, "a join bundle was made");
        store.tell(&meta, EventType::Normal, "JoinBundleReady", note).await;
        let next = step(Asked::from(&meta.metadata), now, settings.token_life);
        return Ok(if let Step::Nothing(at) = next { at } else { None });
    }
    Err(MakeError::Restless)
}

async fn write(
    store: &Store,
    settings: &Settings,
    id: &InstanceId,
    meta: &Meta,
    now: Timestamp,
) -> Result<Written, MakeError> {
    let ca = settings.ca.borrow().clone();
    if ca.is_empty() {
        return Err(MakeError::NoCa);
    }
    let token: Zeroizing<String> = make(id)?;
    let way = settings.way.borrow().clone();
    let text = bundle::text(&way, &ca, &token, id)?;
    if !store.write_bundle(id, meta, &text).await? {
        return Err(MakeError::Occupied(secret_name(id)));
    }
    let expires = now.plus_seconds(seconds(settings.token_life));
    Ok(Written { hash: TokenHash::of(&token), expires, uid: meta.uid() })
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
