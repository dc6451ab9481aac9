//! A new table: every open tunnel is held against it, and those it does not allow are ended.
//!
//! They are ended by the thread they live on, many at a time. Told from outside, a tunnel would be one of thirty things that its
//! thread does in between, and those who were cut and ask again at once would come before those who are still to be cut.
//! Connections are closed first. What the end of a tunnel costs besides (memory, who holds what, a line in the log) is the
//! larger part, and comes when all are closed.

use std::{sync::Arc, time::Instant};

use route_table::RouteTable;
use snitun::driver::Asked;
use tokio::task::yield_now;

use super::{
    allowed::refusal_now,
    registry::{Live, Tunnel},
};
use crate::door::Door;

/// So many tunnels end before everything else on their thread has its turn: some milliseconds.
const AT_ONCE: usize = 128;

/// Tunnels of one thread.
type Tunnels = Arc<[Tunnel]>;

/// Holds all of them against the table. When this is done, those that it does not allow were cut.
pub async fn enforce(door: &Door, table: &RouteTable) {
    let by_thread = refused(door, table);
    let (began, count) = (Instant::now(), by_thread.iter().map(|tunnels| tunnels.len()).sum::<usize>());
    if count == 0 {
        return;
    }
    let mut told = Vec::new();
    for (thread, tunnels) in by_thread.iter().enumerate() {
        // There is no thread but those that tunnels were given.
        let Some(runtime) = door.threads.runtime(thread) else { continue };
        told.push(runtime.spawn(each(tunnels.clone(), |tunnel| tunnel.cut(Asked::Revoked))));
    }
    for told in told {
        // A thread that is gone has taken its tunnels along.
        let _ = told.await;
    }
    if count > 1 {
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(target: "latchkey::tunnel", tunnels = count, revision = table.revision, seconds, "tunnels cut");
    }
    for (thread, tunnels) in by_thread.into_iter().enumerate() {
        if let Some(runtime) = door.threads.runtime(thread) {
            drop(runtime.spawn(each(tunnels, Tunnel::finish)));
        }
    }
}

/// Those that the table does not allow, by their thread. Each knows why from then on.
fn refused(door: &Door, table: &RouteTable) -> Vec<Tunnels> {
    let mut by_thread: Vec<Vec<Tunnel>> = Vec::new();
    let mut look = |live: &Live| {
        let Some(why) = refusal_now(Some(table), &live.session).filter(|_| !live.tunnel.is_closed()) else {
            return;
        };
        // The first reason stays.
        let _ = live.session.revoked.set(why);
        let thread = live.session.thread;
        if by_thread.len() <= thread {
            by_thread.resize_with(thread + 1, Vec::new);
        }
        if let Some(theirs) = by_thread.get_mut(thread) {
            theirs.push(live.tunnel.clone());
        }
    };
    for instance in door.registry.all() {
        instance.for_each_live(&mut look);
    }
    by_thread.into_iter().map(Arc::from).collect()
}

async fn each(tunnels: Tunnels, tell: impl Fn(&Tunnel)) {
    for some in tunnels.chunks(AT_ONCE) {
        some.iter().for_each(&tell);
        yield_now().await;
    }
}
