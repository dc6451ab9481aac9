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
                tracing::warn!(target: "latchkey::operator", error, "no address of the operator");
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

/// Whom to call.
async fn addresses(shared: &Shared) -> Result<BTreeSet<SocketAddr>, String> {
    let (mut all, mut trouble) = (BTreeSet::new(), String::new());
    for address in &shared.addresses {
        match timeout(LOOK_UP_TIME, lookup_host((address.host.as_str(), address.port))).await {
            Ok(Ok(found)) => all.extend(of_one_family(found.collect())),
            Ok(Err(error)) => trouble = format!("{address}: {error}"),
            Err(_) => trouble = format!("{address}: no answer within {} s", LOOK_UP_TIME.as_secs()),
        }
    }
    if all.is_empty() { Err(trouble) } else { Ok(all.into_iter().take(MAX_ADDRESSES).collect()) }
}

/// A pod that has an address of either family would otherwise be called twice.
fn of_one_family(mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(SocketAddr::is_ipv4);
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_with_two_addresses_is_called_once() {
        let family = |found: &[&str]| {
            let found = of_one_family(found.iter().map(|address| address.parse().unwrap()).collect());
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let both = ["[2001:db8::1]:9443", "192.0.2.1:9443", "[2001:db8::2]:9443", "192.0.2.2:9443"];
        assert_eq!(family(&both), ["192.0.2.1:9443", "192.0.2.2:9443"]);
        assert_eq!(family(&["[2001:db8::1]:9443"]), ["[2001:db8::1]:9443"]);
        assert!(family(&[]).is_empty());
    }
}
