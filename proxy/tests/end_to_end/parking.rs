//! Visitors wait for a tunnel that was there lately.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::support::{Agent, Proxy, Visitor, hello, route, table, token};

const LAKE: &str = "lake.ui.example.com";
const BARN: &str = "barn.ui.example.com";
const WAITING: &str = "latchkey_proxy_parked_visitors";

fn two(more: &str) -> String {
    table(1, &[route("homes/lake", LAKE, more), route("homes/barn", BARN, more)])
}

#[tokio::test]
async fn a_visitor_waits_for_a_tunnel_that_was_lost() {
    // A process that has been up for a while knows whose tunnel it lost; a young one does not.
    let proxy = Proxy::with_routes(&two(""), &["--park-window", "3"]).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(Visitor::ask(proxy.address, LAKE).await.refused().await, 80, "nothing to wait for");
    let agent = Agent::open(proxy.address, "first", &token(&[LAKE])).await;
    proxy.held_by("homes/lake", &[1]).await;
    agent.die().await;
    proxy.held_by("homes/lake", &[]).await;
    let mut waiting = Visitor::ask(proxy.address, LAKE).await;
    proxy.shows(WAITING, 1.0).await;
    assert_eq!(Visitor::ask(proxy.address, BARN).await.refused().await, 80, "its neighbour was never here");
    let agent = Agent::open(proxy.address, "second", &token(&[LAKE])).await;
    assert_eq!(waiting.greeting().await, "second 127.0.0.1");
    proxy.shows(WAITING, 0.0).await;
    proxy.shows("latchkey_proxy_parked_visitors_served_total", 1.0).await;
    agent.die().await;
    proxy.held_by("homes/lake", &[]).await;
    sleep(Duration::from_secs(3)).await;
    let asked = Instant::now();
    assert_eq!(Visitor::ask(proxy.address, LAKE).await.refused().await, 80);
    assert!(asked.elapsed() < Duration::from_secs(3), "it was not let wait: too long ago");
    assert!((proxy.refusals("no_tunnel").await - 3.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn who_has_waited_long_enough_is_told() {
    let proxy = Proxy::with_routes(&two(""), &["--park-time", "1"]).await;
    let asked = Instant::now();
    assert_eq!(Visitor::ask(proxy.address, LAKE).await.refused().await, 80);
    assert!(asked.elapsed() >= Duration::from_secs(1));
    proxy.shows("latchkey_proxy_parked_visitors_timed_out_total", 1.0).await;
    proxy.shows(WAITING, 0.0).await;
}

#[tokio::test]
async fn a_route_can_do_without_parking() {
    let proxy = Proxy::with_routes(&two(", parkVisitors: false"), &["--park-time", "300"]).await;
    assert_eq!(Visitor::ask(proxy.address, LAKE).await.refused().await, 80);
}

#[tokio::test]
async fn room_to_wait_is_limited_in_all_and_for_each_instance() {
    let args = ["--park-time", "300", "--max-parked", "3", "--max-parked-per-instance", "2"];
    let proxy = Proxy::with_routes(&two(""), &args).await;
    let mut lake = Vec::new();
    for waiting in [1.0, 2.0] {
        lake.push(Visitor::ask(proxy.address, LAKE).await);
        proxy.shows(WAITING, waiting).await;
    }
    assert_eq!(Visitor::ask(proxy.address, LAKE).await.refused().await, 80, "two wait for it already");
    let _barn = Visitor::ask(proxy.address, BARN).await;
    proxy.shows(WAITING, 3.0).await;
    assert_eq!(Visitor::ask(proxy.address, BARN).await.refused().await, 80, "three wait in all");
    assert!((proxy.refusals("parking_full").await - 2.0).abs() < f64::EPSILON);

    // Whoever hangs up makes room.
    drop(lake.pop());
    proxy.shows(WAITING, 2.0).await;
    assert!((proxy.refusals("visitor_gone").await - 1.0).abs() < f64::EPSILON);
    let mut barn = Visitor::ask(proxy.address, BARN).await;
    proxy.shows(WAITING, 3.0).await;
    let _agent = Agent::open(proxy.address, "barn", &token(&[BARN])).await;
    assert_eq!(barn.greeting().await, "barn 127.0.0.1");
    proxy.shows(WAITING, 1.0).await;
}

#[tokio::test]
async fn networks_come_before_waiting() {
    let proxy = Proxy::with_routes(&two(", denyNetworks: [127.0.0.0/8]"), &["--park-time", "300"]).await;
    assert_eq!(Visitor::ask(proxy.address, LAKE).await.refused().await, 49);
    proxy.shows(WAITING, 0.0).await;
}

#[tokio::test]
async fn an_authority_that_validates_a_name_passes_networks_and_does_not_wait() {
    let proxy = Proxy::with_routes(&two(", denyNetworks: [127.0.0.0/8]"), &["--park-time", "300"]).await;
    let mut early = Visitor::connect("127.0.0.1", proxy.address).await;
    early.say(&hello(LAKE, &["acme-tls/1"])).await;
    assert_eq!(early.refused().await, 80, "it comes again by itself");

    let _agent = Agent::open(proxy.address, "lake", &token(&[LAKE])).await;
    proxy.held_by("homes/lake", &[1]).await;
    let mut authority = Visitor::connect("127.0.0.1", proxy.address).await;
    authority.say(&hello(LAKE, &["acme-tls/1"])).await;
    assert_eq!(authority.greeting().await, "lake 127.0.0.1");
    // Who offers anything else beside it is a visitor like any other.
    let mut visitor = Visitor::connect("127.0.0.1", proxy.address).await;
    visitor.say(&hello(LAKE, &["acme-tls/1", "http/1.1"])).await;
    assert_eq!(visitor.refused().await, 49);
    // All authorities together have a rate of their own.
    let mut refused = 0;
    for _ in 0..40 {
        let mut authority = Visitor::connect("127.0.0.1", proxy.address).await;
        authority.say(&hello("barn.ui.example.com", &["acme-tls/1"])).await;
        assert_eq!(authority.refused().await, 80);
        refused += 1;
    }
    let too_fast = proxy.refusals("acme_rate").await;
    assert!((5.0..=10.0).contains(&too_fast), "{too_fast} of {refused}");
}
