//! A new table: every open tunnel is held against it, and those it does not allow are ended.
//!
//! They are ended by the thread they live on, many at a time. Told from outside, a tunnel would be one of thirty things that its
//! thread does in between, and those who were cut and ask again at once would come before those who are still to be cut.

use std::sync::Arc;

use route_table::RouteTable;
use tokio::task::yield_now;

use super::{
    open::{end_revoked, refusal_now},
    registry::{Session, Tunnel},
};
use crate::{door::Door, metrics::TunnelOpenResult};

/// So many tunnels end before everything else on their thread has its turn: some milliseconds.
const AT_ONCE: usize = 128;

/// A tunnel that has to end, and why.
type Ending = (Arc<Session>, Tunnel, TunnelOpenResult);

/// Holds all of them against the table. When this is done, those that it does not allow were told to end.
pub async fn enforce(door: &Door, table: &RouteTable) {
    let mut by_thread: Vec<Vec<Ending>> = Vec::new();
    for live in door.registry.all().iter().flat_map(|instance| instance.live()) {
        let Some(why) = refusal_now(Some(table), &live.session) else { continue };
        let thread = live.session.thread;
        if by_thread.len() <= thread {
            by_thread.resize_with(thread + 1, Vec::new);
        }
        if let Some(theirs) = by_thread.get_mut(thread) {
            theirs.push((live.session, live.tunnel, why));
        }
    }
    let mut told = Vec::new();
    for (thread, theirs) in by_thread.into_iter().enumerate().filter(|(_, theirs)| !theirs.is_empty()) {
        match door.threads.runtime(thread) {
            Some(runtime) => told.push(runtime.spawn(end(theirs))),
            // There is none but those that tunnels were given.
            None => end(theirs).await,
        }
    }
    for told in told {
        // A thread that is gone has taken its tunnels along.
        let _ = told.await;
    }
}

async fn end(tunnels: Vec<Ending>) {
    for some in tunnels.chunks(AT_ONCE) {
        for (session, tunnel, why) in some {
            end_revoked(session, tunnel, *why);
        }
        yield_now().await;
    }
}
