//! A new table: every open tunnel is held against it, and those it does not allow are ended.
//!
//! They are ended by the thread they live on, many at a time. Told from outside, a tunnel would be one of thirty things that its
//! thread does in between, and those who were cut and ask again at once would come before those who are still to be cut.
//! Connections are closed first; what is written of each of them comes when all are.

use std::{sync::Arc, time::Instant};

use route_table::RouteTable;
use tokio::{sync::watch, task::yield_now};

use super::{
    allowed::refusal_now,
    open::end_revoked,
    registry::{Live, Session, Tunnel},
};
use crate::{door::Door, metrics::TunnelOpenResult};

/// So many tunnels end before everything else on their thread has its turn: some milliseconds.
const AT_ONCE: usize = 128;

/// A tunnel that has to end, and why.
type Ending = (Arc<Session>, Tunnel, TunnelOpenResult);

/// Says whether tunnels are being cut just now.
#[derive(Debug, Default)]
pub struct Cutting(watch::Sender<bool>);

/// Tunnels are being cut as long as it is there.
struct UnderWay<'a>(&'a Cutting);

impl Cutting {
    fn begins(&self) -> UnderWay<'_> {
        self.0.send_replace(true);
        UnderWay(self)
    }

    /// Waits until nobody is left to be cut. For what can wait that long: a thousand lines in a log cost as much as the end
    /// of a hundred tunnels.
    pub async fn over(&self) {
        if *self.0.borrow() {
            // The sender is ours: there is no error to wait for.
            let _ = self.0.subscribe().wait_for(|cutting| !cutting).await;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.send_replace(false);
    }
}

/// Holds all of them against the table. When this is done, those that it does not allow were told to end.
pub async fn enforce(door: &Door, table: &RouteTable) {
    let mut by_thread: Vec<Vec<Ending>> = Vec::new();
    let mut look = |live: &Live| {
        let Some(why) = refusal_now(Some(table), &live.session) else { return };
        let thread = live.session.thread;
        if by_thread.len() <= thread {
            by_thread.resize_with(thread + 1, Vec::new);
        }
        if let Some(theirs) = by_thread.get_mut(thread) {
            theirs.push((live.session.clone(), live.tunnel.clone(), why));
        }
    };
    for instance in door.registry.all() {
        instance.for_each_live(&mut look);
    }
    let (began, count) = (Instant::now(), by_thread.iter().map(Vec::len).sum::<usize>());
    let _under_way = door.cutting.begins();
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
    if count > 1 {
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(target: "latchkey::tunnel", tunnels = count, revision = table.revision, seconds, "tunnels cut");
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_can_wait_waits_until_everybody_was_cut() {
        let cutting = Cutting::default();
        cutting.over().await;
        let under_way = cutting.begins();
        let mut waiting = std::pin::pin!(cutting.over());
        assert!(timeout(Duration::from_mins(1), &mut waiting).await.is_err());
        drop(under_way);
        waiting.await;
    }
}
