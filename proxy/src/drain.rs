//! The end of the process: new connections go to a newcomer, agents move, visitors finish.
//!
//! ```text
//! SIGTERM   unready; a process beside us gets the new connections; agents of ours are told to open a
//!           second tunnel, spread over a while; stock tunnels end as soon as they have no visitor
//! settle    whoever still came to us has been served; we stop listening; tunnels end when empty
//! 2/3       stock tunnels end
//! grace     everything ends
//! ```

use std::{net::TcpListener, sync::Arc, time::Duration};

use byte_relay::leaving;
use snitun::driver::{Asked, Signal};
use tokio::{
    io::unix::AsyncFd,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{door::Door, listen::prefer_newcomer, tunnels::registry::Live};

/// How long load balancers may take to forget us.
const SETTLE: Duration = Duration::from_secs(15);
/// Agents are not sent away faster than this.
const MOVES_PER_SECOND: u32 = 500;

/// A public socket and the task that accepts on it.
#[derive(Debug)]
pub struct Entrance {
    /// The socket.
    pub listener: Arc<AsyncFd<TcpListener>>,
    /// The task.
    pub task: AbortHandle,
}

/// Drains until nothing is left or `grace` is over.
pub async fn drain(door: Arc<Door>, entrances: Vec<Entrance>, grace: Duration) {
    let start = Instant::now();
    door.start_draining();
    for entrance in &entrances {
        if let Err(error) = prefer_newcomer(entrance.listener.get_ref()) {
            tracing::debug!(%error, "a newcomer on this port cannot be preferred");
        }
    }
    let settle = SETTLE.min(grace / 3);
    let tunnels = live(&door);
    tracing::info!(tunnels = tunnels.len(), grace = grace.as_secs(), "draining");
    let told = async {
        send_away(&tunnels, settle / 2).await;
        // Whoever was told last needs a moment, too: where tunnels are many, that is long after the first.
        sleep(settle / 2).await;
    };
    let all_told = async { timeout_at(start + grace, told).await };
    let _ = tokio::join!(all_told, sleep_until(start + settle));
    // Nobody is in the queue of a socket that a newcomer relieved; one more look empties it otherwise.
    drop(entrances.into_iter().map(Leaving).collect::<Vec<_>>());
    for live in live(&door) {
        live.tunnel.drain();
    }
    let mut stock_told = false;
    while Instant::now() < start + grace {
        let left = live(&door);
        if left.is_empty() && door.parked.count() == 0 {
            break;
        }
        if !stock_told && Instant::now() >= start + grace * 2 / 3 {
            stock_told = true;
            left.iter().filter(|live| !is_ours(live)).for_each(|live| live.tunnel.end(Asked::Stopping));
        }
        sleep(Duration::from_millis(50)).await;
    }
    for live in live(&door) {
        live.tunnel.end(Asked::Stopping);
    }
    // A moment for the last words of those, and of visitors that left just now.
    sleep(leaving::MOMENT + Duration::from_millis(100)).await;
}

struct Leaving(Entrance);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.task.abort();
    }
}

fn live(door: &Door) -> Vec<Live> {
    door.registry.all().iter().flat_map(|instance| instance.live()).collect()
}

fn is_ours(live: &Live) -> bool {
    live.session.ours.get().is_some()
}

/// Tells agents to move, evenly over `within`, or longer where they are many.
async fn send_away(tunnels: &[Live], within: Duration) {
    let count = u32::try_from(tunnels.len()).unwrap_or(u32::MAX).max(1);
    let step = (within / count).min(Duration::from_millis(50)).max(Duration::from_secs(1) / MOVES_PER_SECOND);
    for live in tunnels {
        if is_ours(live) {
            live.tunnel.signal(Signal::GoAway);
        } else {
            live.tunnel.drain();
        }
        sleep(step).await;
    }
}
