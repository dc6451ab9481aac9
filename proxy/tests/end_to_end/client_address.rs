//! Who a visitor is: the peer of its connection, or whom a load balancer that may be believed names.

use super::support::{Agent, Proxy, Visitor, hello, token};

const HOST: &str = "lake.example.com";

fn version_1(source: &str) -> Vec<u8> {
    let family = if source.contains(':') { ("TCP6", "2001:db8::1") } else { ("TCP4", "192.0.2.1") };
    format!("PROXY {} {source} {} 50123 443\r\n", family.0, family.1).into_bytes()
}

fn version_2(source: &str) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match source.parse().unwrap() {
        std::net::IpAddr::V4(source) => {
            header.extend([0x11, 0, 12]);
            header.extend(source.octets());
            header.extend([192, 0, 2, 1]);
        }
        std::net::IpAddr::V6(source) => {
            header.extend([0x21, 0, 36]);
            header.extend(source.octets());
            header.extend([0; 16]);
        }
    }
    header.extend([0xc3, 0xcb, 0x01, 0xbb]);
    header
}

#[tokio::test]
async fn a_header_of_a_trusted_proxy_reaches_the_agent_as_the_visitors_address() {
    let proxy = Proxy::start(&["--trusted-proxies", "127.0.0.5/32,10.0.0.0/8"]).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    for (header, address) in [
        (version_1("203.0.113.7"), "203.0.113.7"),
        (version_1("2001:db8::7"), "2001:db8::7"),
        (version_2("203.0.113.8"), "203.0.113.8"),
        (version_2("2001:db8::8"), "2001:db8::8"),
        (version_1("::ffff:203.0.113.9"), "203.0.113.9"),
    ] {
        // In one piece, and in many.
        let bytes = [header, hello(HOST, &[])].concat();
        for size in [bytes.len(), 7] {
            let mut visitor = Visitor::connect("127.0.0.5", proxy.address).await;
            for piece in bytes.chunks(size) {
                visitor.say(piece).await;
            }
            assert_eq!(visitor.greeting().await, format!("lake {address}"));
        }
    }
    // A balancer's own connection has no header.
    let mut visitor = Visitor::ask_from("127.0.0.5", proxy.address, HOST).await;
    assert_eq!(visitor.greeting().await, "lake 127.0.0.5");
}

#[tokio::test]
async fn anybody_elses_header_is_refused() {
    let proxy = Proxy::start(&["--trusted-proxies", "127.0.0.5/32"]).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    for header in [version_1("203.0.113.7"), version_2("203.0.113.7")] {
        let mut visitor = Visitor::connect("127.0.0.6", proxy.address).await;
        visitor.say(&[header, hello(HOST, &[])].concat()).await;
        visitor.dropped().await;
    }
    assert!((proxy.refusals("not_tls").await - 2.0).abs() < f64::EPSILON);
    let mut broken = Visitor::connect("127.0.0.5", proxy.address).await;
    broken.say(b"PROXY TCP4 203.0.113.7 nonsense\r\n").await;
    broken.dropped().await;
    assert!((proxy.refusals("proxy_header").await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn an_agent_behind_a_trusted_proxy_is_shown_with_its_own_address() {
    let proxy = Proxy::start(&["--trusted-proxies", "127.0.0.5/32"]).await;
    let mut agent = Visitor::connect("127.0.0.5", proxy.address).await;
    let token = super::support::sealed(&token(&[HOST]));
    agent.say(&[version_2("203.0.113.20"), token.into_bytes()].concat()).await;
    agent.challenge_answered_wrongly().await;
    proxy.shows("latchkey_proxy_tunnel_opens_total{result=\"bad_answer\"}", 1.0).await;
    let log = proxy.process.log();
    assert!(log.contains("203.0.113.20"), "{log}");
}

#[tokio::test]
async fn limits_and_networks_go_by_the_address_in_the_header() {
    let args = ["--trusted-proxies", "127.0.0.5/32", "--unlimited-clients", "192.0.2.0/24"];
    let proxy = Proxy::start(&[&args[..], &["--client-connections", "1"]].concat()).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    let mut held = Vec::new();
    for address in ["203.0.113.1", "203.0.113.2", "2001:db8:0:1::1", "2001:db8:0:2::1"] {
        let mut visitor = Visitor::connect("127.0.0.5", proxy.address).await;
        visitor.say(&[version_2(address), hello(HOST, &[])].concat()).await;
        assert_eq!(visitor.greeting().await, format!("lake {address}"));
        held.push(visitor);
    }
    // The same again, where a household's IPv6 network is one client.
    for address in ["203.0.113.1", "2001:db8:0:1:ffff::2"] {
        let mut visitor = Visitor::connect("127.0.0.5", proxy.address).await;
        visitor.say(&[version_2(address), hello(HOST, &[])].concat()).await;
        visitor.dropped().await;
    }
    assert!((proxy.refusals("client_connections").await - 2.0).abs() < f64::EPSILON);
}
