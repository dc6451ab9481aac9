//! What anybody may cost.

use std::time::Duration;

use tokio::time::Instant;

use super::support::{Agent, Proxy, Visitor, route, table, token, until};

const HOST: &str = "lake.ui.example.com";
/// Loopback is like anybody else.
const STRICT: [&str; 2] = ["--unlimited-clients", "192.0.2.0/24"];

fn one(limits: &str) -> String {
    table(1, &[route("homes/lake", HOST, &format!(", limits: {{{limits}}}"))])
}

async fn served(proxy: &Proxy, from: &str) -> Visitor {
    let mut visitor = Visitor::ask_from(from, proxy.address, HOST).await;
    assert_eq!(visitor.greeting().await, format!("lake {from}"));
    visitor
}

#[tokio::test]
async fn an_address_may_have_so_many_connections_at_a_time() {
    let proxy = Proxy::with_routes(&one(""), &[&STRICT[..], &["--client-connections", "3"]].concat()).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(served(&proxy, "127.0.0.2").await);
    }
    Visitor::ask_from("127.0.0.2", proxy.address, HOST).await.dropped().await;
    assert!((proxy.refusals("client_connections").await - 1.0).abs() < f64::EPSILON);
    served(&proxy, "127.0.0.3").await;
    drop(held.pop());
    proxy.shows("latchkey_proxy_visitors", 2.0).await;
    served(&proxy, "127.0.0.2").await;
}

#[tokio::test]
async fn an_address_may_open_so_many_connections_a_minute() {
    let args = [&STRICT[..], &["--client-connections-per-minute", "6"]].concat();
    let proxy = Proxy::with_routes(&one(""), &args).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    for _ in 0..3 {
        served(&proxy, "127.0.0.2").await;
    }
    Visitor::ask_from("127.0.0.2", proxy.address, HOST).await.dropped().await;
    assert!((proxy.refusals("client_rate").await - 1.0).abs() < f64::EPSILON);
    served(&proxy, "127.0.0.3").await;
}

#[tokio::test]
async fn an_instance_may_have_so_many_visitors() {
    let proxy = Proxy::with_routes(&one("maxConnections: 2"), &[]).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    let mut held = vec![served(&proxy, "127.0.0.2").await, served(&proxy, "127.0.0.3").await];
    assert_eq!(Visitor::ask(proxy.address, HOST).await.refused().await, 80);
    assert!((proxy.refusals("instance_connections").await - 1.0).abs() < f64::EPSILON);
    drop(held.pop());
    proxy.shows("latchkey_proxy_visitors", 1.0).await;
    served(&proxy, "127.0.0.4").await;
}

#[tokio::test]
async fn an_instance_sees_so_many_new_connections_of_one_address() {
    let args = [&STRICT[..], &["--client-connections", "100"]].concat();
    let proxy = Proxy::with_routes(&one("newConnectionsPerMinutePerClient: 3"), &args).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    for _ in 0..3 {
        served(&proxy, "127.0.0.2").await;
    }
    assert_eq!(Visitor::ask_from("127.0.0.2", proxy.address, HOST).await.refused().await, 80);
    assert!((proxy.refusals("client_rate").await - 1.0).abs() < f64::EPSILON);
    served(&proxy, "127.0.0.3").await;
}

#[tokio::test]
async fn connections_that_say_nothing_harm_nobody_and_end() {
    let proxy = Proxy::with_routes(&one(""), &["--hello-time", "2"]).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    let mut silent = Vec::new();
    for number in 0..500 {
        let mut visitor = Visitor::connect("127.0.0.2", proxy.address).await;
        // Half of them begin a hello, or a token, and stop.
        match number % 4 {
            0 => visitor.say(&[22, 3, 1]).await,
            1 => visitor.say(b"g").await,
            _ => {}
        }
        silent.push(visitor);
    }
    let begun = Instant::now();
    for _ in 0..50 {
        served(&proxy, "127.0.0.3").await.echo(&vec![1; 10_000]).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "others wait for them: {:?}", begun.elapsed());
    for visitor in silent {
        visitor.dropped().await;
    }
    proxy.shows("latchkey_proxy_handshakes", 0.0).await;
    assert!((proxy.refusals("hello_timeout").await - 500.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn idle_tunnels_and_visitors_cost_little_and_are_not_held_to_a_low_limit_of_descriptors() {
    const MANY: u64 = 400;
    let proxy = Proxy::with_descriptors(100, &[]).await;
    let (mut agents, mut visitors) = (Vec::new(), Vec::new());
    // What is made once, and what the allocator keeps in reserve, is there after some.
    for number in 0..50 {
        let host = format!("early{number}.example.com");
        agents.push(Agent::open(proxy.address, "early", &token(&[&host])).await);
        let mut visitor = Visitor::ask(proxy.address, "early0.example.com").await;
        visitor.greeting().await;
        visitors.push(visitor);
    }
    let before = proxy.process.resident();
    for number in 0..MANY {
        let host = format!("h{number}.example.com");
        agents.push(Agent::open(proxy.address, "idle", &token(&[&host])).await);
    }
    proxy.shows("latchkey_proxy_tunnels", 450.0).await;
    let tunnel = proxy.process.resident().saturating_sub(before) / MANY;
    assert!(tunnel <= 12 << 10, "{tunnel} bytes a tunnel");
    let before = proxy.process.resident();
    for _ in 0..MANY {
        let mut visitor = Visitor::ask(proxy.address, "h0.example.com").await;
        visitor.greeting().await;
        visitors.push(visitor);
    }
    let visitor = proxy.process.resident().saturating_sub(before) / MANY;
    assert!(visitor <= 4 << 10, "{visitor} bytes a visitor");
    println!("{tunnel} bytes a tunnel, {visitor} bytes a visitor");
}

#[tokio::test]
async fn only_so_many_may_be_undecided_at_a_time() {
    let proxy = Proxy::with_routes(&one(""), &["--max-handshakes", "5", "--hello-time", "3"]).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    proxy.held_by("homes/lake", &[1]).await;
    let mut undecided = Vec::new();
    for _ in 0..5 {
        let mut visitor = Visitor::connect("127.0.0.2", proxy.address).await;
        visitor.say(&[22]).await;
        undecided.push(visitor);
    }
    proxy.shows("latchkey_proxy_handshakes", 5.0).await;
    Visitor::ask(proxy.address, HOST).await.dropped().await;
    assert!((proxy.refusals("handshakes").await - 1.0).abs() < f64::EPSILON);
    for visitor in undecided {
        visitor.dropped().await;
    }
    proxy.shows("latchkey_proxy_handshakes", 0.0).await;
    served(&proxy, "127.0.0.1").await;
}

#[tokio::test]
async fn the_session_api_counts_among_an_addresss_connections() {
    let proxy = Proxy::with_routes(&one(""), &[&STRICT[..], &["--client-connections", "2"]].concat()).await;
    let mut held = Vec::new();
    for connections in [1.0, 2.0] {
        held.push(Visitor::ask_from("127.0.0.2", proxy.address, "connect.ui.example.com").await);
        proxy.shows("latchkey_proxy_session_api_connections", connections).await;
    }
    Visitor::ask_from("127.0.0.2", proxy.address, "connect.ui.example.com").await.dropped().await;
    assert!((proxy.refusals("client_connections").await - 1.0).abs() < f64::EPSILON);
    held.push(Visitor::ask_from("127.0.0.3", proxy.address, "connect.ui.example.com").await);
    proxy.shows("latchkey_proxy_session_api_connections", 3.0).await;
}

#[tokio::test]
async fn a_hello_has_a_size() {
    let proxy = Proxy::with_routes(&one(""), &[]).await;
    let mut endless = Visitor::connect("127.0.0.1", proxy.address).await;
    // A message of 60 000 bytes, in records of 16 000.
    let mut record = vec![22, 3, 1, 0x3e, 0x80, 1, 0, 0xea, 0x60];
    record.resize(5 + 16_000, 0);
    for _ in 0..3 {
        endless.say(&record).await;
    }
    endless.dropped().await;
    until("it is counted", || async { proxy.refusals("not_tls").await > 0.5 }).await;
}
