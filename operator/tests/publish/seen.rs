//! What proxies see, over the wire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use latchkey_operator::publish::{Limits, Publisher};
use operator_link::wire;
use operator_link::wire::from_proxy::Message;

use crate::proxy::Proxy;
use crate::rig::{Rig, routes};

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

fn connected(at: u32, connected: bool, since: i64) -> wire::InstanceFacts {
    let agent_version = "1.2.3".to_owned();
    let tunnel = wire::Tunnel { connected, since, agent_version, protocol_version: Some(2), count: 1 };
    wire::InstanceFacts { id: format!("homes/house-{at}"), tunnel: Some(tunnel), reported: None }
}

async fn tell(proxy: &Proxy, from_the_start: bool, complete: bool, instances: Vec<wire::InstanceFacts>) {
    proxy.send(Message::Facts(wire::Facts { from_the_start, complete, instances })).await;
}

fn up(publisher: &Publisher) -> usize {
    let reports = publisher.reports();
    reports.values().filter(|report| report.tunnel.as_ref().is_some_and(|tunnel| tunnel.connected)).count()
}

#[tokio::test]
async fn tunnels_of_two_proxies_and_of_one_that_dies() {
    let rig = Rig::start(Limits { grace: Duration::from_secs(2), ..Limits::default() }).await;
    rig.publisher.lead(1);
    rig.publish(1, &routes(3_000));
    let (one, other) = (rig.attach("proxy-0", 1).await, rig.attach("proxy-1", 1).await);
    for part in 0..3 {
        let instances =
            (part * 1_000..part * 1_000 + 1_000).map(|at| connected(at, true, now() - 500)).collect();
        tell(&one, part == 0, part == 2, instances).await;
    }
    rig.until(|publisher| up(publisher) == 3_000).await;
    // One is told by both, with a clock that is wrong.
    tell(&other, true, true, vec![connected(7, true, now() + 3_600)]).await;
    rig.until(|publisher| publisher.counters().batches == 4).await;
    let known = rig.publisher.reports();
    let since = known.get("homes/house-7").unwrap().tunnel.as_ref().unwrap().since.0;
    assert!(since <= now(), "{since}");
    drop(one);
    rig.until(|publisher| publisher.proxies().len() == 1).await;
    assert_eq!(up(&rig.publisher), 3_000, "it may come back");
    rig.until(|publisher| up(publisher) == 1).await;
    let reports = rig.publisher.reports();
    let gone = reports.get("homes/house-8").unwrap().tunnel.as_ref().unwrap();
    assert!(!gone.connected && gone.since.0 >= now() - 30, "{gone:?}");
    assert!(reports.get("homes/house-7").unwrap().tunnel.as_ref().unwrap().connected);
}

#[tokio::test]
async fn a_proxy_that_comes_back_in_time_has_its_tunnels_still() {
    let rig = Rig::start(Limits { grace: Duration::from_secs(2), ..Limits::default() }).await;
    let proxy = rig.attach("proxy-0", 1).await;
    let (first, second) = (connected(1, true, now() - 500), connected(2, true, now() - 500));
    tell(&proxy, true, true, vec![first.clone(), second]).await;
    rig.until(|publisher| up(publisher) == 2).await;
    drop(proxy);
    rig.until(|publisher| publisher.proxies().is_empty()).await;
    let again = rig.attach("proxy-0", 1).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(up(&rig.publisher), 2, "longer than the grace, but it is here");
    tell(&again, true, true, vec![first]).await;
    rig.until(|publisher| up(publisher) == 1).await;
    assert_eq!(rig.publisher.reports().len(), 1);
}

#[tokio::test]
async fn what_is_ready_is_said_by_pods_where_they_are_known() {
    let rig = Rig::start(Limits::default()).await;
    rig.publisher.lead(1);
    rig.publish(4, &routes(3));
    rig.expect(&[("proxy-0", true), ("proxy-1", false)]);
    let (mut one, mut other) = (rig.attach("proxy-0", 1).await, rig.attach("proxy-1", 1).await);
    for proxy in [&mut one, &mut other] {
        proxy.welcome().await;
        proxy.read_update().await;
    }
    other.health(true).await;
    one.acknowledge().await;
    rig.until(|publisher| publisher.applied().revision == Some(4)).await;
    rig.expect(&[("proxy-0", true), ("proxy-1", true)]);
    assert_eq!((rig.publisher.applied().ready_proxies, rig.publisher.applied().revision), (2, None));
    other.acknowledge().await;
    rig.until(|publisher| publisher.applied().revision == Some(4)).await;
}

#[tokio::test]
async fn nonsense_is_counted_and_harms_nothing_else() {
    let rig = Rig::start(Limits { strangers: 0, ..Limits::default() }).await;
    rig.publisher.lead(1);
    rig.publish(1, &routes(1));
    let proxy = rig.attach("proxy-0", 1).await;
    let nonsense = wire::InstanceFacts { id: "no id".to_owned(), ..connected(0, true, 0) };
    tell(&proxy, true, true, vec![nonsense, connected(0, true, 0), connected(99, true, 0)]).await;
    rig.until(|publisher| up(publisher) == 1).await;
    assert_eq!(rig.publisher.counters().facts_dropped, 2);
}
