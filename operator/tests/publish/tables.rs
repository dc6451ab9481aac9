//! Tables on their way down, and answers on their way up.

use std::time::Duration;

use latchkey_operator::publish::Limits;
use operator_link::Position;
use operator_link::wire::to_proxy::Message;
use route_table::{Route, RouteTable};
use zeroize::Zeroizing;

use crate::rig::{Rig, Routes, route, routes, soon};

fn at(term: u64, revision: u64) -> Position {
    Position { term, revision }
}

#[tokio::test]
async fn everything_first_then_what_changed() {
    let rig = Rig::start(Limits::default()).await;
    rig.publisher.lead(3);
    rig.publisher.set_token_keys(vec![Zeroizing::new([1; 32]), Zeroizing::new([2; 32])]);
    let mut table = routes(20_000);
    rig.publish(1, &table);

    let mut proxy = rig.attach("proxy-0", 1).await;
    assert_eq!(proxy.welcome().await, 3);
    let Message::TokenKeys(keys) = proxy.next().await.unwrap() else { panic!("no keys") };
    assert_eq!(keys.keys, [vec![1; 32], vec![2; 32]]);
    assert_eq!((proxy.read_update().await, proxy.from), (at(3, 1), None));
    assert!(proxy.has(&table));
    proxy.health(true).await;
    rig.until(|publisher| publisher.applied().ready_proxies == 1).await;
    assert_eq!(rig.publisher.applied().revision, None, "it has not said so yet");
    proxy.acknowledge().await;
    rig.until(|publisher| publisher.applied().revision == Some(1)).await;

    let changed = route(7, 2);
    table.insert(changed.id.clone(), changed);
    table.remove(&"homes/house-8".parse().unwrap());
    rig.publish(2, &table);
    assert_eq!((proxy.read_update().await, proxy.from), (at(3, 2), Some(at(3, 1))));
    assert!(proxy.has(&table));
    proxy.acknowledge().await;
    rig.until(|publisher| publisher.applied().revision == Some(2)).await;

    let counters = rig.publisher.counters();
    assert_eq!((counters.published, counters.sent_everything, counters.sent_changes), (2, 1, 1));
    assert_eq!((counters.applied, counters.refused), (2, 0));
    assert!(counters.sent_bytes > 500_000 && counters.applied_microseconds > 0, "{counters:?}");
}

#[tokio::test]
async fn a_slow_proxy_passes_over_revisions_and_holds_up_nobody() {
    let rig = Rig::start(Limits::default()).await;
    rig.publisher.lead(1);
    let mut table = routes(10);
    rig.publish(1, &table);
    let (mut slow, mut quick) = (rig.attach("proxy-0", 1).await, rig.attach("proxy-1", 1).await);
    for proxy in [&mut slow, &mut quick] {
        proxy.welcome().await;
        proxy.read_update().await;
        proxy.health(true).await;
    }
    quick.acknowledge().await;
    for revision in 2..=20 {
        let changed = route(3, revision);
        table.insert(changed.id.clone(), changed);
        rig.publish(revision, &table);
        while quick.read_update().await.revision < revision {
            quick.acknowledge().await;
        }
        quick.acknowledge().await;
    }
    assert!(quick.has(&table));
    rig.until(|publisher| {
        let proxies = publisher.proxies();
        proxies.len() == 2 && proxies[1].position == Some(at(1, 20)) && proxies[0].position.is_none()
    })
    .await;
    slow.acknowledge().await;
    assert_eq!((slow.read_update().await, slow.from), (at(1, 20), Some(at(1, 1))));
    assert!(slow.has(&table));
    rig.until(|publisher| publisher.applied().revision == Some(1)).await;
    slow.acknowledge().await;
    rig.until(|publisher| publisher.applied().revision == Some(20)).await;
    assert!(rig.publisher.proxies().iter().all(|proxy| proxy.lag.is_zero()));
}

#[tokio::test]
async fn a_large_table_waits_in_the_connection_and_not_in_memory() {
    let rig = Rig::start(Limits::default()).await;
    rig.publisher.lead(1);
    let table = routes(100_000);
    rig.publish(1, &table);
    let mut proxy = rig.attach("proxy-0", 1).await;
    proxy.welcome().await;
    // It reads nothing for now. What is encoded is what the connection and a message or two can hold.
    let mut sent = 0;
    soon(async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let now = rig.publisher.counters().sent_bytes;
            if now > 0 && now == sent {
                return;
            }
            sent = now;
        }
    })
    .await;
    proxy.read_update().await;
    assert!(proxy.has(&table));
    let all = rig.publisher.counters().sent_bytes;
    assert!(sent < all - 2_000_000, "{sent} of {all}");
}

#[tokio::test]
async fn a_proxy_that_dials_anew_goes_on_where_it_was() {
    let rig = Rig::start(Limits::default()).await;
    rig.publisher.lead(1);
    let mut table = routes(10);
    rig.publish(1, &table);
    let mut proxy = rig.attach("proxy-0", 5).await;
    proxy.welcome().await;
    proxy.read_update().await;
    proxy.acknowledge().await;
    rig.until(|publisher| publisher.counters().applied == 1).await;
    let changed = route(3, 2);
    table.insert(changed.id.clone(), changed);
    rig.publish(2, &table);
    // A second stream on the same connection takes the place of the first.
    soon(proxy.hello("proxy-0", 5)).await.unwrap();
    proxy.welcome().await;
    assert_eq!((proxy.read_update().await, proxy.from), (at(1, 2), Some(at(1, 1))));
    assert!(proxy.has(&table));
    assert_eq!(rig.publisher.proxies()[0].position, Some(at(1, 1)));
}

#[tokio::test]
async fn a_follower_says_so_and_leads_later() {
    let rig = Rig::start(Limits::default()).await;
    let mut proxy = rig.attach("proxy-0", 1).await;
    assert!(matches!(proxy.next().await.unwrap(), Message::NotLeader(_)));
    let table = routes(3);
    rig.publish(1, &table);
    rig.publisher.lead(9);
    assert_eq!(proxy.welcome().await, 9);
    rig.publish(1, &table);
    assert_eq!(proxy.read_update().await, at(9, 1));
    proxy.acknowledge().await;
    rig.publisher.resign();
    assert!(matches!(proxy.next().await.unwrap(), Message::NotLeader(_)));
    assert_eq!(rig.publisher.counters().published, 1, "a follower publishes nothing");
}

#[tokio::test]
async fn who_refuses_gets_everything() {
    let rig = Rig::start(Limits::default()).await;
    rig.publisher.lead(1);
    rig.publish(1, &routes(3));
    let mut proxy = rig.attach("proxy-0", 1).await;
    proxy.welcome().await;
    proxy.read_update().await;
    proxy.acknowledge().await;
    rig.publish(2, &routes(4));
    let before = proxy.table.clone();
    proxy.read_update().await;
    proxy.table = before;
    proxy.answer("homes/house-3: is odd").await;
    assert_eq!((proxy.read_update().await, proxy.from), (at(1, 2), None));
    assert!(proxy.has(&routes(4)));
    assert_eq!(rig.publisher.counters().refused, 1);
    assert_eq!(rig.publisher.proxies()[0].position, Some(at(1, 1)));
}

#[tokio::test]
async fn a_sign_of_life_comes_whatever_else_happens() {
    let every = Duration::from_millis(300);
    let rig = Rig::start(Limits { ping_every: every, ..Limits::default() }).await;
    rig.publisher.lead(1);
    rig.publish(1, &routes(3));
    let mut proxy = rig.attach("proxy-0", 1).await;
    proxy.welcome().await;
    proxy.read_update().await;
    proxy.acknowledge().await;
    for _ in 0..2 {
        soon(proxy.ping_though_it_talks(every / 10)).await;
    }
}

/// A list of version blocks.
fn blocks(name: &str) -> Route {
    let table = format!(
        "revision: 1\nroutes:\n- id: a/b\n  hostnames: []\n  blocks: [{{name: {name}, versions: [\"<=2021.1.4\"], reason: old}}]\n"
    );
    RouteTable::parse(&table).unwrap().by_id("a/b").unwrap().clone()
}

/// The same routes, each with these blocks.
fn with_blocks(routes: &Routes, list: &Route) -> Routes {
    routes.iter().map(|(id, route)| (id.clone(), route.with_blocks(&list.blocks))).collect()
}

#[tokio::test]
async fn other_blocks_for_a_fleet_are_told_shortly_to_whoever_understands_that() {
    let rig = Rig::start(Limits::default()).await;
    rig.publisher.lead(1);
    let bare = routes(1_500);
    rig.publish(1, &bare);
    let mut proxies = [rig.attach("proxy-0", 1).await, rig.attach_with("proxy-1", 1, 1).await];
    for proxy in &mut proxies {
        proxy.welcome().await;
        proxy.read_update().await;
        assert_eq!(proxy.told, (1_500, 0));
        proxy.acknowledge().await;
    }
    let mut now = with_blocks(&bare, &blocks("first"));
    let other = route(7, 2);
    for (revision, told) in [(2, (0, 1)), (3, (1, 1))] {
        rig.publish(revision, &now);
        for (proxy, told) in proxies.iter_mut().zip([told, (1_500, 0)]) {
            assert_eq!((proxy.read_update().await, proxy.from), (at(1, revision), Some(at(1, revision - 1))));
            assert_eq!(proxy.told, told);
            assert!(proxy.has(&now));
            proxy.acknowledge().await;
        }
        now = with_blocks(&now, &blocks("second"));
        now.insert(other.id.clone(), other.clone());
    }
}
