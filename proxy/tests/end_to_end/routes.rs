//! A routes file decides who is served, and goes on deciding while it changes.

use snitun::token::Token;

use super::support::{Agent, Proxy, Visitor, get, route, table, token, with_claims};

const ID: &str = "homes/lake";
const HOST: &str = "lake.ui.example.com";
const BLOCK: &str =
    ", blocks: [{name: old, versions: [\"<=2021.1.4\"], reason: Traversal, moreInfo: \"https://x.example\"}]";

fn key() -> String {
    "ab".repeat(32)
}

/// A file with one route.
fn one(revision: u32, more: &str) -> String {
    table(revision, &[route(ID, HOST, &format!(", agentKeys: [\"{}\"]{more}", key()))])
}

#[tokio::test]
async fn each_refusal_has_its_alert() {
    let text = table(
        1,
        &[
            route("homes/off", "off.ui.example.com", ", enabled: false"),
            route("homes/old", "old.ui.example.com", &format!(", version: \"2020.12.1\"{BLOCK}")),
            route("homes/far", "far.ui.example.com", ", denyNetworks: [127.0.0.0/8]"),
            route("homes/near", "near.ui.example.com", ", allowNetworks: [192.0.2.0/24]"),
            route("homes/away", "away.ui.example.com", ""),
            route("homes/new", "new.ui.example.com", ", aRestrictionOfTomorrow: true"),
        ],
    );
    let proxy = Proxy::with_routes(&text, &["--park-window", "0"]).await;
    for (host, alert, reason) in [
        ("off.ui.example.com", 112, "disabled"),
        ("old.ui.example.com", 112, "blocked"),
        ("nobody.ui.example.com", 112, "unknown_host"),
        ("new.ui.example.com", 112, "not_understood"),
        ("far.ui.example.com", 49, "network"),
        ("near.ui.example.com", 49, "network"),
        ("away.ui.example.com", 80, "no_tunnel"),
    ] {
        let before = proxy.refusals(reason).await;
        assert_eq!(Visitor::ask(proxy.address, host).await.refused().await, alert, "{host}");
        assert!(proxy.refusals(reason).await > before, "{host}: {reason}");
    }
}

/// Opens a tunnel, changes the file to what cuts it, sees it cut and its visitors refused, changes the file
/// back and sees them served again.
async fn cut_and_let_back(session: &Token, start: &str, cutting: &str, end: &str, alert: u8) {
    let proxy = Proxy::with_routes(&one(1, start), &["--park-window", "0"]).await;
    let agent = Agent::open(proxy.address, "lake", session).await;
    proxy.held_by(ID, &[1]).await;
    let mut visitor = Visitor::ask(proxy.address, HOST).await;
    assert_eq!(visitor.greeting().await, "lake 127.0.0.1");

    proxy.set_routes(cutting);
    agent.ended().await;
    assert!(visitor.echo(b"still there?").await.is_err(), "its visitors are cut, too");
    proxy.held_by(ID, &[]).await;
    proxy.shows(&format!("latchkey_proxy_tunnel_ends_total{{reason=\"{end}\"}}"), 1.0).await;
    assert_eq!(Visitor::ask(proxy.address, HOST).await.refused().await, alert);
    assert!(Agent::try_open(proxy.address, "lake", session).await.is_err(), "nor does it come back");

    proxy.set_routes(&one(3, start));
    proxy.shows("latchkey_proxy_route_table_revision", 3.0).await;
    let _agent = Agent::open(proxy.address, "lake", session).await;
    proxy.held_by(ID, &[2]).await;
    let mut visitor = Visitor::ask(proxy.address, HOST).await;
    assert_eq!(visitor.greeting().await, "lake 127.0.0.1");
}

#[tokio::test]
async fn a_route_that_is_disabled_cuts_its_tunnel() {
    let session = with_claims(HOST, ID, "2026.11.1", &key());
    cut_and_let_back(&session, "", &one(2, ", enabled: false"), "disabled", 112).await;
}

#[tokio::test]
async fn a_route_that_is_gone_cuts_its_tunnel() {
    let other = table(2, &[route("homes/barn", "barn.ui.example.com", "")]);
    // Also one that a token of another issuer opened.
    cut_and_let_back(&token(&[HOST]), "", &other, "route_gone", 112).await;
}

#[tokio::test]
async fn a_block_cuts_the_version_that_was_reported() {
    let session = with_claims(HOST, ID, "2020.12.1", &key());
    let good = ", version: \"2026.11.1\"";
    cut_and_let_back(&session, good, &one(2, &format!("{good}{BLOCK}")), "blocked", 112).await;
}

#[tokio::test]
async fn a_block_cuts_the_version_that_was_declared() {
    let declared = ", version: \"2020.12.1\"";
    cut_and_let_back(&token(&[HOST]), declared, &one(2, &format!("{declared}{BLOCK}")), "blocked", 112).await;
}

#[tokio::test]
async fn a_key_that_is_removed_cuts_the_tunnel_it_opened() {
    let session = with_claims(HOST, ID, "2026.11.1", &key());
    let without = table(2, &[route(ID, HOST, "")]);
    cut_and_let_back(&session, "", &without, "old_key", 80).await;
}

#[tokio::test]
async fn another_generation_cuts_the_tunnels_of_the_one_before() {
    let session = with_claims(HOST, ID, "2026.11.1", &key());
    cut_and_let_back(&session, "", &one(2, ", generation: 2"), "old_key", 80).await;
}

#[tokio::test]
async fn networks_are_read_anew_for_every_visitor() {
    let proxy = Proxy::with_routes(&one(1, ""), &[]).await;
    let _agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    proxy.held_by(ID, &[1]).await;
    proxy.set_routes(&one(2, ", denyNetworks: [127.0.0.2/32]"));
    proxy.shows("latchkey_proxy_route_table_revision", 2.0).await;
    assert_eq!(Visitor::ask_from("127.0.0.2", proxy.address, HOST).await.refused().await, 49);
    let mut other = Visitor::ask_from("127.0.0.3", proxy.address, HOST).await;
    assert_eq!(other.greeting().await, "lake 127.0.0.3");
    assert_eq!(proxy.sessions_of(ID).await, [1], "the tunnel stays");
}

#[tokio::test]
async fn a_file_that_turns_invalid_changes_nothing_and_is_reported() {
    let proxy = Proxy::with_routes(&one(1, ""), &[]).await;
    let agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    proxy.held_by(ID, &[1]).await;
    proxy.set_routes("revision: 2\nroutes: [{id: homes/lake, hostnames: [\n");
    proxy.shows("latchkey_proxy_route_table_error", 1.0).await;
    let (status, ready) = get(proxy.admin, "/readyz").await;
    assert_eq!(status, 200, "it goes on serving");
    assert!(ready.contains("the last good table serves"), "{ready}");
    assert!(agent.is_open());
    let mut visitor = Visitor::ask(proxy.address, HOST).await;
    assert_eq!(visitor.greeting().await, "lake 127.0.0.1");

    proxy.set_routes(&one(3, ", enabled: false"));
    agent.ended().await;
    proxy.shows("latchkey_proxy_route_table_error", 0.0).await;
    proxy.shows("latchkey_proxy_route_table_revision", 3.0).await;
}

#[tokio::test]
async fn several_tunnels_share_the_visitors_of_a_route_that_allows_them() {
    let proxy = Proxy::with_routes(&one(1, ", tunnels: 2"), &[]).await;
    let _first = Agent::open(proxy.address, "first", &token(&[HOST])).await;
    proxy.held_by(ID, &[1]).await;
    let _second = Agent::open(proxy.address, "second", &token(&[HOST])).await;
    proxy.held_by(ID, &[1, 2]).await;
    let mut served = Vec::new();
    for _ in 0..4 {
        let mut visitor = Visitor::ask(proxy.address, HOST).await;
        let greeting = visitor.greeting().await;
        served.push((greeting, visitor));
    }
    let by_first = served.iter().filter(|(greeting, _)| greeting.starts_with("first")).count();
    assert_eq!(by_first, 2);
    let _third = Agent::open(proxy.address, "third", &token(&[HOST])).await;
    proxy.held_by(ID, &[2, 3]).await;
}
