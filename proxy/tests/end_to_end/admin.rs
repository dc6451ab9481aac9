//! The admin listener, with the figures of a proxy at work.

use serde_json::Value;

use super::support::{Agent, Proxy, Visitor, get, route, table, token, until, with_claims};

const HOST: &str = "lake.ui.example.com";

#[tokio::test]
async fn tunnels_and_metrics_show_what_goes_on() {
    let key = "cd".repeat(32);
    let text = table(4, &[route("homes/lake", HOST, &format!(", agentKeys: [\"{key}\"]"))]);
    let proxy = Proxy::with_routes(&text, &["--heartbeat", "1"]).await;
    assert_eq!(get(proxy.admin, "/livez").await, (200, "ok\n".to_owned()));
    let (status, ready) = get(proxy.admin, "/readyz").await;
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((status, &ready["ready"]), (200, &Value::Bool(true)));
    assert!(proxy.tunnels().await.is_empty());

    let session = with_claims(HOST, "homes/lake", "2026.11.1", &key);
    let agent = Agent::open(proxy.address, "lake", &session).await;
    let mut visitor = Visitor::ask(proxy.address, HOST).await;
    visitor.greeting().await;
    visitor.echo(&vec![1; 100_000]).await.unwrap();
    until("a heartbeat is answered", || async {
        proxy.tunnels().await[0].get("lastPongAgeSeconds").is_some()
    })
    .await;
    let row = proxy.tunnels().await.remove(0);
    for (member, value) in [
        ("instance", Value::from("homes/lake")),
        ("session", 1.into()),
        ("agent", "127.0.0.77".into()),
        ("version", "2026.11.1".into()),
        ("agentVersion", "0.1.0".into()),
        ("protocol", 2.into()),
        ("cipher", "aes-gcm-siv".into()),
        ("channels", 1.into()),
    ] {
        assert_eq!(row[member], value, "{member}: {row}");
    }
    assert!(row["bytesIn"].as_u64().unwrap() > 100_000, "{row}");
    assert!(row["bytesOut"].as_u64().unwrap() > 100_000, "{row}");
    assert!(row["lastPongAgeSeconds"].as_f64().unwrap() < 10.0, "{row}");
    for (name, value) in [
        ("latchkey_proxy_tunnels", 1.0),
        ("latchkey_proxy_channels", 1.0),
        ("latchkey_proxy_visitors", 1.0),
        ("latchkey_proxy_visitors_accepted_total", 1.0),
        ("latchkey_proxy_tunnel_opens_total{result=\"opened\"}", 1.0),
        ("latchkey_proxy_route_table_revision", 4.0),
        ("latchkey_proxy_route_table_routes", 1.0),
        ("latchkey_proxy_fernet_keys", 1.0),
    ] {
        proxy.shows(name, value).await;
    }

    drop(visitor);
    proxy.shows("latchkey_proxy_visitors", 0.0).await;
    proxy.shows("latchkey_proxy_visitors_ended_total{by=\"visitor\"}", 1.0).await;
    assert!(
        proxy.metric("latchkey_proxy_forwarded_bytes_total{direction=\"from_visitor\"}").await > 100_000.0
    );
    assert!(proxy.metric("latchkey_proxy_forwarded_bytes_total{direction=\"to_visitor\"}").await > 100_000.0);
    agent.die().await;
    proxy.shows("latchkey_proxy_tunnels", 0.0).await;
    assert!(proxy.tunnels().await.is_empty());
}

#[tokio::test]
async fn many_tunnels_come_in_pages() {
    let proxy = Proxy::start(&[]).await;
    let mut agents = Vec::new();
    for number in 0..5 {
        let host = format!("h{number}.example.com");
        agents.push(Agent::open(proxy.address, &host, &token(&[&host])).await);
        proxy.held_by(&host, &[1]).await;
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let (status, text) = get(proxy.admin, &format!("/tunnels?limit=2&after={after}")).await;
        assert_eq!(status, 200);
        let page: Value = serde_json::from_str(&text).unwrap();
        let rows = page["tunnels"].as_array().unwrap();
        assert!(rows.len() <= 2);
        seen.extend(rows.iter().map(|row| row["instance"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = next.replace('#', "%23");
    }
    let wanted: Vec<String> = (0..5).map(|number| format!("h{number}.example.com")).collect();
    assert_eq!(seen, wanted);
}
