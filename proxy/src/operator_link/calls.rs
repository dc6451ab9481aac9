//! Who is called: every address of the operator's name, each by a task of its own.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::RngExt as _;
use tokio::{
    net::lookup_host,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Shared,
    backoff::{Backoff, GOOD},
    stream::{StreamEnd, attend},
};

/// How often the name is looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(3);
/// How long that may take.
const LOOK_UP_TIME: Duration = Duration::from_secs(5);
/// Pods of one operator; more are not called.
const MAX_ADDRESSES: usize = 16;

/// Calls whoever the name leads to, for ever. Ends its calls when it is dropped.
pub(super) async fn call_everybody(shared: Arc<Shared>) {
    let (wanted, _) = watch::channel(BTreeSet::new());
    let mut running = BTreeSet::new();
    let mut calls = JoinSet::new();
    let mut told = None;
    loop {
        match addresses(&shared).await {
            Ok(found) => {
                told = None;
                wanted.send_if_modified(|wanted| {
                    let changed = *wanted != found;
                    wanted.clone_from(&found);
                    changed
                });
            }
            // Whoever was known is called on.
            Err(error) => tell_once(&mut told, error, |error| {
                tracing::warn!(target: "latchkey::operator", operator = %shared.address, error, "the name leads nowhere");
            }),
        }
        for address in wanted.borrow().iter() {
            if running.insert(*address) {
                calls.spawn(call_again_and_again(shared.clone(), *address, wanted.subscribe()));
            }
        }
        let pause = sleep(LOOK_UP_EVERY);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(ended) = calls.join_next(), if !calls.is_empty() => {
                    match ended {
                        Ok(address) => {
                            running.remove(&address);
                        }
                        // A call that failed in itself: all of those that are left are known, the rest begins anew.
                        Err(error) => {
                            tracing::error!(target: "latchkey::operator", %error, "a call ended unexpectedly");
                            calls.abort_all();
                            running.clear();
                        }
                    }
                }
            }
        }
    }
}

/// The addresses of one family: a pod that has one of each would otherwise be called twice.
async fn addresses(shared: &Shared) -> Result<BTreeSet<SocketAddr>, String> {
    let look_up = lookup_host((shared.address.host.as_str(), shared.address.port));
    let found: Vec<_> = match timeout(LOOK_UP_TIME, look_up).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {} s", LOOK_UP_TIME.as_secs())),
    };
    let is_ipv4 = found.iter().any(SocketAddr::is_ipv4);
    Ok(found.into_iter().filter(|address| address.is_ipv4() == is_ipv4).take(MAX_ADDRESSES).collect())
}

/// Until the name leads here no more. A stream that is open goes on as long as both live.
async fn call_again_and_again(
    shared: Arc<Shared>,
    address: SocketAddr,
    mut wanted: watch::Receiver<BTreeSet<SocketAddr>>,
) -> SocketAddr {
    let (mut backoff, mut told) = (Backoff::default(), None);
    while wanted.borrow_and_update().contains(&address) {
        let begun = Instant::now();
        let end = attend(&shared, address).await;
        let lasted = begun.elapsed();
        if lasted >= GOOD {
            told = None;
        }
        if matches!(end, StreamEnd::Closed | StreamEnd::Replaced) {
            tracing::debug!(target: "latchkey::operator", %address, %end, "the stream ended");
        } else {
            tell_once(&mut told, end.to_string(), |error| {
                tracing::warn!(target: "latchkey::operator", %address, error, "no stream to the operator");
            });
        }
        let wait = sleep(backoff.after(lasted, rand::rng().random()));
        tokio::select! {
            () = wait => {}
            // Whether the address is still wanted is looked at sooner then.
            _ = wanted.changed() => {}
        }
    }
    address
}

/// Tells what is not what was told last.
fn tell_once(told: &mut Option<String>, what: String, tell: impl FnOnce(&str)) {
    if told.as_ref() != Some(&what) {
        tell(&what);
        *told = Some(what);
    }
}
