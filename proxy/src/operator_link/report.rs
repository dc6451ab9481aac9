//! Tells a leader what goes on here, for as long as it leads.

use std::{sync::Arc, time::Duration};

use operator_link::{
    limits::MAX_FACTS,
    wire::{FromProxy, Health, from_proxy::Message},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{table::Table, witness::Witness};
use crate::door::Door;

/// Facts are gathered for this long.
const GATHER: Duration = Duration::from_millis(250);
/// ... and for so much longer where there is more than a message of them: what makes so many tunnels come or go has better to
/// do, here and at the operator.
const GATHER_MANY: Duration = Duration::from_secs(1);
/// Health is told at most this often.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Instances that left the table are forgotten this often.
const FORGET_EVERY: Duration = Duration::from_mins(1);

/// Tells the leader everything, and then what changes. Ends with the stream.
pub(super) async fn report(
    door: Arc<Door>,
    table: Arc<Table>,
    witness: Arc<Witness>,
    up: mpsc::Sender<FromProxy>,
) {
    witness.begin();
    // One of them ends when the stream is closed; the other one has nobody left to tell, then.
    tokio::select! {
        () = tell_facts(&door, &table, &witness, &up) => {}
        () = tell_health(&door, &table, &up) => {}
    }
}

async fn tell_facts(door: &Door, table: &Table, witness: &Witness, up: &mpsc::Sender<FromProxy>) {
    let mut forgotten = Instant::now();
    loop {
        let begun = Instant::now();
        witness.look(&door.registry);
        while let Some(facts) = witness.next() {
            if say(up, Message::Facts(facts)).await.is_err() {
                return;
            }
        }
        if forgotten.elapsed() >= FORGET_EVERY {
            forgotten = Instant::now();
            witness.retain(&table.live().current());
        }
        witness.news(&door.registry).await;
        sleep_until(begun + GATHER).await;
        if door.registry.changes().count() > MAX_FACTS {
            sleep(GATHER_MANY).await;
        }
    }
}

async fn tell_health(door: &Door, table: &Table, up: &mpsc::Sender<FromProxy>) {
    let mut told = None;
    let mut ticks = interval(HEALTH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let health = Health {
            ready: table.position().is_some() && !door.is_draining(),
            tunnels: u32::try_from(door.metrics.tunnels.get()).unwrap_or_default(),
        };
        if told != Some(health) {
            if say(up, Message::Health(health)).await.is_err() {
                return;
            }
            told = Some(health);
        }
    }
}

async fn say(
    up: &mpsc::Sender<FromProxy>,
    message: Message,
) -> Result<(), mpsc::error::SendError<FromProxy>> {
    up.send(FromProxy { message: Some(message) }).await
}
