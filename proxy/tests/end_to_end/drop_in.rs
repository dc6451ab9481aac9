//! A drop-in SniTun server: whatever a valid token names is served.

use super::support::{Agent, Proxy, Visitor, sealed, soon, token};

/// Whoever asks for a host that no tunnel has held is refused at once.
const NO_PARKING: [&str; 2] = ["--park-window", "0"];

#[tokio::test]
async fn the_hostname_and_the_aliases_of_a_token_are_served() {
    let proxy = Proxy::start(&NO_PARKING).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&["lake.example.com", "Home.Example.ORG"])).await;
    proxy.held_by("lake.example.com", &[1]).await;
    proxy.held_by("home.example.org", &[1]).await;
    for host in ["lake.example.com", "home.example.org"] {
        let mut visitor = Visitor::ask(proxy.address, host).await;
        assert_eq!(visitor.greeting().await, "lake 127.0.0.1");
        visitor.echo(&vec![42; 300_000]).await.unwrap();
    }
}

#[tokio::test]
async fn a_second_tunnel_takes_the_place_of_the_first() {
    let proxy = Proxy::start(&NO_PARKING).await;
    let first = Agent::open(proxy.address, "first", &token(&["lake.example.com"])).await;
    proxy.held_by("lake.example.com", &[1]).await;
    let _second = Agent::open(proxy.address, "second", &token(&["lake.example.com"])).await;
    proxy.held_by("lake.example.com", &[2]).await;
    first.ended().await;
    let mut visitor = Visitor::ask(proxy.address, "lake.example.com").await;
    assert_eq!(visitor.greeting().await, "second 127.0.0.1");
}

#[tokio::test]
async fn tokens_that_are_not_good_open_nothing() {
    let proxy = Proxy::start(&["--park-window", "0", "--token-time", "1"]).await;
    let mut old = token(&["lake.example.com"]);
    old.valid -= 7200.0;
    let good = sealed(&token(&["lake.example.com"]));
    let (cut, mut forged) = (good.as_bytes()[..good.len() / 2].to_vec(), good.clone().into_bytes());
    forged[30] ^= 1;
    let garbage = [b"gAAAA".to_vec(), vec![b'!'; 100]].concat();
    let result = |result: &str| format!("latchkey_proxy_tunnel_opens_total{{result=\"{result}\"}}");
    for (bytes, result, count) in [
        (sealed(&old).into_bytes(), result("expired"), 1.0),
        (forged, result("bad_token"), 1.0),
        (garbage, result("bad_token"), 2.0),
        (cut, result("bad_token"), 3.0),
    ] {
        let mut caller = Visitor::connect("127.0.0.1", proxy.address).await;
        caller.say(&bytes).await;
        caller.dropped().await;
        proxy.shows(&result, count).await;
    }
    // Neither a hello nor a token.
    let mut caller = Visitor::connect("127.0.0.1", proxy.address).await;
    caller.say(b"GET / HTTP/1.1\r\n\r\n").await;
    caller.dropped().await;
    assert!(proxy.tunnels().await.is_empty());
}

#[tokio::test]
async fn a_token_is_not_enough_without_its_key() {
    let proxy = Proxy::start(&NO_PARKING).await;
    let mut caller = Visitor::connect("127.0.0.1", proxy.address).await;
    caller.say(sealed(&token(&["lake.example.com"])).as_bytes()).await;
    caller.challenge_answered_wrongly().await;
    proxy.shows("latchkey_proxy_tunnel_opens_total{result=\"bad_answer\"}", 1.0).await;
    assert!(proxy.tunnels().await.is_empty());
}

#[tokio::test]
async fn an_unknown_host_is_told_so_also_when_the_visitor_keeps_talking() {
    let proxy = Proxy::start(&NO_PARKING).await;
    assert_eq!(Visitor::ask(proxy.address, "nobody.example.com").await.refused().await, 112);
    for _ in 0..20 {
        let mut visitor = Visitor::ask(proxy.address, "nobody.example.com").await;
        // More than the proxy has read when it refuses: a close right away would answer with a reset,
        // and the reset would eat the alert.
        for _ in 0..8 {
            visitor.say(&[23; 16 << 10]).await;
        }
        assert_eq!(visitor.refused().await, 112);
    }
    assert!((proxy.refusals("unknown_host").await - 21.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn visitors_are_cut_with_their_tunnel_and_served_by_the_next() {
    let proxy = Proxy::start(&[]).await;
    let agent = Agent::open(proxy.address, "first", &token(&["lake.example.com"])).await;
    let mut visitor = Visitor::ask(proxy.address, "lake.example.com").await;
    assert_eq!(visitor.greeting().await, "first 127.0.0.1");
    agent.die().await;
    let cut = soon("the visitor is cut", visitor.echo(b"still there?")).await;
    assert!(cut.is_err());
    let mut waiting = Visitor::ask(proxy.address, "lake.example.com").await;
    let _agent = Agent::open(proxy.address, "second", &token(&["lake.example.com"])).await;
    assert_eq!(waiting.greeting().await, "second 127.0.0.1");
}
