//! Routes, keys and who may join come from an operator; what goes on here is told to it.

use operator_link::CONTRACT;
use operator_link::wire::{
    self, Enrolled, Health, NotLeader, Refusal, RefusalKind, enrolled::Outcome, to_proxy::Message as Down,
};
use route_table::Fingerprint;
use rustix::process::Signal;
use serde_json::Value;

use super::support::{
    Agent, Attached, Authority, Operator, Proxy, REPLICA, RealAgent, State, Visitor, echoing_instance, get,
    route, table, until, with_claims,
};

const ID: &str = "homes/lake";
const HOST: &str = "lake.ui.example.com";
const APPLIED: &str = "latchkey_proxy_operator_updates_total{result=\"applied\"}";
const REFUSED: &str = "latchkey_proxy_operator_updates_total{result=\"refused\"}";

fn key() -> String {
    "ab".repeat(32)
}

/// A table with one instance.
fn one(revision: u32, keys: &[String]) -> String {
    table(revision, &[route(ID, HOST, &format!(", agentKeys: [{}]", keys.join(", ")))])
}

fn nobody(revision: u32) -> String {
    table(revision, &[])
}

/// A proxy that serves a table from a leader.
async fn led(term: u64, table: &str, args: &[&str]) -> (Operator, Attached, Proxy) {
    let mut operator = Operator::start().await;
    let starting = Proxy::with_operator(&operator, args).await;
    let leader = operator.lead(term, table).await;
    let proxy = starting.listens().await;
    (operator, leader, proxy)
}

/// A condition of /readyz: does it hold, and what is said of it?
async fn condition(proxy: &Proxy, name: &str) -> (bool, String) {
    let page: Value = serde_json::from_str(&get(proxy.admin, "/readyz").await.1).unwrap();
    let found = page["conditions"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    (found["ok"].as_bool().unwrap(), found["message"].as_str().unwrap().to_owned())
}

async fn is_served(proxy: &Proxy, greeting: &str) {
    let mut visitor = Visitor::ask(proxy.address, HOST).await;
    assert_eq!(visitor.greeting().await, greeting);
    visitor.echo(&vec![9; 100_000]).await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_sent_serves_visitors_and_the_operator_hears_of_it() {
    let (state, keys) = State::with_key();
    let mut operator = Operator::start().await;
    let mut starting = Proxy::with_operator(&operator, &[]).await;
    let mut leader = operator.attached().await;
    let hello = leader.hello.clone();
    assert_eq!((hello.proxy.as_str(), hello.contract, hello.has), (REPLICA, CONTRACT, None));

    leader.welcome(3).await;
    let all =
        leader.told("everything, which is nothing", |facts| facts.from_the_start && facts.complete).await;
    assert!(all.instances.is_empty());
    leader.healthy(Health { ready: false, tunnels: 0 }).await;
    assert_eq!(get(starting.admin, "/readyz").await.0, 503);
    assert!(starting.is_waiting(), "it has no table, and accepts nobody");

    leader.token_keys().await;
    leader.everything(3, &one(7, &keys)).await;
    leader.in_force(3, 7).await;
    let proxy = starting.listens().await;
    leader.healthy(Health { ready: true, tunnels: 0 }).await;
    assert_eq!(get(proxy.admin, "/readyz").await.0, 200);
    assert_eq!(condition(&proxy, "routes").await, (true, "position 3.7, 1 routes".to_owned()));
    assert!(condition(&proxy, "operator").await.1.starts_with("the leader of term 3 at 127.0.0.1:"));
    proxy.shows("latchkey_proxy_operator_connected", 1.0).await;
    proxy.shows("latchkey_proxy_route_table_term", 3.0).await;
    proxy.shows("latchkey_proxy_route_table_revision", 7.0).await;
    proxy.shows("latchkey_proxy_fernet_keys", 3.0).await;

    let echo = echoing_instance().await;
    let args = ["--mode", "passthrough", "--target", &echo, "--product-version", "2026.11.1"];
    let agent = RealAgent::join(&proxy, &state, &args);
    let told =
        leader.told("the report", |facts| facts.instances.iter().any(|facts| facts.reported.is_some())).await;
    let reported = told.instances[0].reported.clone().unwrap();
    assert_eq!((told.instances[0].id.as_str(), reported.version.as_deref()), (ID, Some("2026.11.1")));
    if told.instances[0].tunnel.is_none() {
        leader.told("the tunnel", |facts| is_connected(facts) == Some(true)).await;
    }
    is_served(&proxy, "instance").await;
    leader.healthy(Health { ready: true, tunnels: 1 }).await;

    agent.process.signal(Signal::KILL);
    leader.told("that it is gone", |facts| is_connected(facts) == Some(false)).await;
    leader.healthy(Health { ready: true, tunnels: 0 }).await;
}

fn is_connected(facts: &wire::Facts) -> Option<bool> {
    let of = facts.instances.iter().find(|facts| facts.id == ID)?;
    of.tunnel.as_ref().map(|tunnel| tunnel.connected)
}

#[tokio::test]
async fn a_change_removes_a_route_and_cuts_its_tunnel_and_tokens_are_those_of_the_operators_keys() {
    let (_operator, mut leader, proxy) = led(1, &one(1, &[key()]), &["--park-window", "0"]).await;
    let session = with_claims(HOST, ID, "2026.11.1", &key());
    leader.token_keys().await;
    proxy.shows("latchkey_proxy_fernet_keys", 3.0).await;
    let agent = Agent::open(proxy.address, "lake", &session).await;
    proxy.held_by(ID, &[1]).await;
    is_served(&proxy, "lake 127.0.0.1").await;
    leader.told("the tunnel", |facts| is_connected(facts) == Some(true)).await;

    leader.change(1, 1, &nobody(2), &[ID]).await;
    leader.in_force(1, 2).await;
    assert_eq!(Visitor::ask(proxy.address, HOST).await.refused().await, 112, "from the answer on");
    agent.ended().await;
    proxy.shows("latchkey_proxy_tunnel_ends_total{reason=\"route_gone\"}", 1.0).await;
    leader.told("that it is gone", |facts| is_connected(facts) == Some(false)).await;
    proxy.shows(APPLIED, 2.0).await;
}

#[tokio::test]
async fn a_deposed_leader_cannot_push() {
    let (mut operator, leader, proxy) = led(5, &one(1, &[key()]), &[]).await;
    drop(leader);
    let mut old = operator.attached().await;
    assert_eq!(old.hello.has.map(|has| (has.term, has.revision)), Some((5, 1)));
    old.welcome(4).await;
    // It does not wait to be believed.
    let push = old.parts(4, &nobody(900)).remove(0);
    old.say(Down::Update(push)).await;
    old.ended().await;
    proxy.shows("latchkey_proxy_operator_leaders_refused_total", 1.0).await;
    proxy.shows("latchkey_proxy_operator_connected", 0.0).await;
    assert_eq!(condition(&proxy, "routes").await.1, "position 5.1, 1 routes");
    assert_eq!(get(proxy.admin, "/readyz").await.0, 200, "it serves what it has");

    let mut next = operator.lead(6, &one(1, &[key()])).await;
    // A leader's update to another term than its own is none either.
    let push = next.parts(7, &nobody(1)).remove(0);
    next.say(Down::Update(push)).await;
    let (position, refused) = next.applied().await;
    assert_eq!(position, Some((6, 1)));
    assert!(refused.contains("term 7"), "{refused}");
}

#[tokio::test]
async fn another_pod_takes_over_and_the_old_leader_is_hung_up_on() {
    let authority = Authority::new();
    let (mut first, mut second) = (Operator::of(authority.clone()).await, Operator::of(authority).await);
    let starting = Proxy::with_operator(&first, &["--operator", &second.address.to_string()]).await;
    let old = first.lead(1, &one(1, &[key()])).await;
    let mut new = second.attached().await;
    new.say(Down::NotLeader(NotLeader {})).await;
    let proxy = starting.listens().await;
    proxy.shows("latchkey_proxy_operator_streams", 2.0).await;

    new.welcome(2).await;
    // The old one has not noticed yet.
    old.ended().await;
    let mut old = first.attached().await;
    old.welcome(1).await;
    let push = old.parts(1, &nobody(9)).remove(0);
    old.say(Down::Update(push)).await;
    old.ended().await;
    new.change(2, 1, &nobody(1), &[ID]).await;
    let (position, refused) = new.applied().await;
    assert_eq!(position, Some((1, 1)), "the second began from a table of its own term: {refused}");
    new.everything(2, &one(1, &[key()])).await;
    new.in_force(2, 1).await;
    assert!(condition(&proxy, "operator").await.1.starts_with("the leader of term 2 at "));
    let all = new.told("everything", |facts| facts.from_the_start && facts.complete).await;
    assert!(all.instances.is_empty());
}

#[tokio::test]
async fn whoever_does_not_lead_is_not_believed_until_it_does() {
    let mut operator = Operator::start().await;
    let mut starting = Proxy::with_operator(&operator, &[]).await;
    let mut pod = operator.attached().await;
    pod.say(Down::NotLeader(NotLeader {})).await;
    pod.everything(1, &one(1, &[key()])).await;
    pod.ping(100).await;
    pod.welcome(1).await;
    // The answer to what comes now: what came before was passed over.
    pod.everything(1, &one(2, &[key()])).await;
    pod.in_force(1, 2).await;
    assert!(!starting.is_waiting() || starting.admin.port() > 0);
    let proxy = starting.listens().await;
    pod.say(Down::NotLeader(NotLeader {})).await;
    proxy.shows("latchkey_proxy_operator_connected", 0.0).await;
    proxy.shows("latchkey_proxy_operator_streams", 1.0).await;
    pod.change(1, 2, &nobody(3), &[ID]).await;
    pod.welcome(2).await;
    pod.everything(2, &one(1, &[key()])).await;
    pod.in_force(2, 1).await;
    proxy.shows(APPLIED, 2.0).await;
}

#[tokio::test]
async fn a_gap_is_refused_and_everything_mends_it() {
    let (_operator, mut leader, proxy) = led(1, &one(1, &[key()]), &[]).await;
    leader.change(1, 5, &nobody(6), &[ID]).await;
    let (position, refused) = leader.applied().await;
    assert_eq!(position, Some((1, 1)), "the table that stays");
    assert!(refused.contains("from 1.5") && refused.contains("1.1"), "{refused}");
    assert!(condition(&proxy, "routes").await.1.contains("an update is refused: "));
    leader.everything(1, &one(6, &[key()])).await;
    leader.in_force(1, 6).await;
    assert_eq!(condition(&proxy, "routes").await.1, "position 1.6, 1 routes");
    proxy.shows(REFUSED, 1.0).await;
    proxy.shows("latchkey_proxy_route_table_error", 0.0).await;
}

#[tokio::test]
async fn a_restriction_that_is_not_known_refuses_the_route_and_no_other() {
    let text = table(
        1,
        &[
            route(ID, HOST, &format!(", agentKeys: [{}]", key())),
            route("homes/hill", "hill.ui.example.com", ""),
        ],
    );
    let (_operator, mut leader, proxy) = led(1, &text, &["--park-window", "0"]).await;
    leader.token_keys().await;
    proxy.shows("latchkey_proxy_fernet_keys", 3.0).await;
    let agent = Agent::open(proxy.address, "lake", &with_claims(HOST, ID, "2026.11.1", &key())).await;
    proxy.held_by(ID, &[1]).await;

    let mut part = leader.parts(1, &text.replace("revision: 1\n", "revision: 2\n")).remove(0);
    let restricted = part.routes.iter_mut().find(|route| route.id == ID).unwrap();
    restricted.must_understand.push("maxBandwidth".to_owned());
    leader.say(Down::Update(part)).await;
    leader.in_force(1, 2).await;
    agent.ended().await;
    proxy.shows("latchkey_proxy_tunnel_ends_total{reason=\"not_understood\"}", 1.0).await;
    assert_eq!(Visitor::ask(proxy.address, HOST).await.refused().await, 112);
    assert!(proxy.refusals("not_understood").await > 0.0);
    assert_eq!(
        Visitor::ask(proxy.address, "hill.ui.example.com").await.refused().await,
        80,
        "known, but away"
    );
}

#[tokio::test]
async fn a_restarted_proxy_serves_from_the_kept_table_while_no_operator_is_there() {
    let (state, keys) = State::with_key();
    let (operator, leader, mut proxy) = led(4, &one(9, &keys), &[]).await;
    until("the table is kept", || async { proxy.path("table").exists() }).await;
    drop((leader, operator));
    proxy.process.signal(Signal::KILL);
    proxy.process.ended().await;

    let proxy = proxy.successor().await;
    assert_eq!(get(proxy.admin, "/readyz").await.0, 200);
    assert_eq!(
        condition(&proxy, "routes").await,
        (true, "position 4.9, 1 routes, out of the cache".to_owned())
    );
    assert!(condition(&proxy, "operator").await.1.contains("no leader"));
    let echo = echoing_instance().await;
    let _agent = RealAgent::join(&proxy, &state, &["--mode", "passthrough", "--target", &echo]);
    proxy.held_by(ID, &[1]).await;
    is_served(&proxy, "instance").await;
    // Somebody who would join has to wait.
    let stranger = State::new();
    let _stranger = RealAgent::join_with(&proxy, &stranger, Some("lkjoin_x"), &["--target", "127.0.0.1:9"]);
    until("it is told to come later", || async {
        proxy.metric("latchkey_proxy_session_api_answers_total{code=\"503\"}").await > 0.0
    })
    .await;
}

#[tokio::test]
async fn a_change_from_the_kept_table_is_enough_after_a_restart() {
    let (mut operator, leader, mut proxy) = led(4, &one(9, &[key()]), &[]).await;
    until("the table is kept", || async { proxy.path("table").exists() }).await;
    let first = leader.hello.incarnation;
    drop(leader);
    proxy.process.signal(Signal::KILL);
    proxy.process.ended().await;
    let proxy = proxy.successor().await;
    let mut leader = loop {
        let attached = operator.attached().await;
        if attached.hello.incarnation != first {
            break attached;
        }
    };
    assert_eq!(leader.hello.has.map(|has| (has.term, has.revision)), Some((4, 9)));
    leader.welcome(4).await;
    leader.change(4, 9, &table(10, &[route("homes/hill", "hill.ui.example.com", "")]), &[]).await;
    leader.in_force(4, 10).await;
    assert_eq!(condition(&proxy, "routes").await.1, "position 4.10, 2 routes");
}

#[tokio::test]
async fn a_kept_table_that_is_damaged_is_passed_over() {
    let (operator, leader, mut proxy) = led(4, &one(9, &[key()]), &[]).await;
    until("the table is kept", || async { proxy.path("table").exists() }).await;
    proxy.process.signal(Signal::KILL);
    proxy.process.ended().await;
    drop(leader);
    let path = proxy.path("table");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut operator = operator;
    let (proxy, leader) = tokio::join!(proxy.successor(), async {
        let mut leader = operator.attached().await;
        while leader.hello.has.is_some() {
            leader = operator.attached().await;
        }
        leader.welcome(4).await;
        leader.everything(4, &one(9, &[key()])).await;
        leader.in_force(4, 9).await;
        leader
    });
    assert!(proxy.process.log().contains("the kept table is passed over"));
    drop(leader);
}

#[tokio::test]
async fn an_agent_joins_by_a_token_that_the_operator_redeems() {
    let (state, keys) = State::with_key();
    let (_operator, mut leader, proxy) = led(1, &one(1, &[]), &[]).await;
    leader.ping(300).await;
    let _agent = RealAgent::join_with(&proxy, &state, Some("lkjoin_secret"), &["--target", "127.0.0.1:9"]);
    let enrol = leader.enrol().await;
    assert_eq!(enrol.join_token, "lkjoin_secret");
    let proved = Fingerprint::from_bytes(enrol.public_key_sha256.try_into().unwrap());
    assert_eq!(proved.to_string(), keys[0]);
    let answer = |outcome| Down::Enrolled(Enrolled { number: enrol.number, outcome: Some(outcome) });
    // Somebody else's number is nobody's answer.
    let wrong = Refusal { kind: RefusalKind::Token.into(), detail: "used".to_owned() };
    leader.say(Down::Enrolled(Enrolled { number: 77, outcome: Some(Outcome::Refusal(wrong)) })).await;
    leader.say(answer(Outcome::Instance(ID.to_owned()))).await;
    leader.everything(1, &one(2, &keys)).await;
    leader.in_force(1, 2).await;
    proxy.held_by(ID, &[1]).await;
    proxy.shows("latchkey_proxy_session_api_answers_total{code=\"503\"}", 0.0).await;
    assert!(!proxy.process.log().contains("lkjoin_secret"));

    let late = State::new();
    let _late = RealAgent::join_with(&proxy, &late, Some("lkjoin_used"), &["--target", "127.0.0.1:9"]);
    let number = leader.enrol().await.number;
    let used = Refusal { kind: RefusalKind::Token.into(), detail: "this join token was used".to_owned() };
    leader.say(Down::Enrolled(Enrolled { number, outcome: Some(Outcome::Refusal(used)) })).await;
    proxy.shows("latchkey_proxy_session_api_answers_total{code=\"422\"}", 1.0).await;
}

#[tokio::test]
async fn a_pod_that_falls_silent_is_called_anew() {
    let (mut operator, leader, proxy) = led(1, &one(1, &[key()]), &[]).await;
    leader.ping(1).await;
    let next = operator.attached().await;
    assert_eq!(next.hello.incarnation, leader.hello.incarnation);
    until("it says why", || async { proxy.process.log().contains("nothing was heard for 3 s") }).await;
}

#[tokio::test]
async fn an_operator_of_another_authority_is_not_listened_to() {
    let operator = Operator::start().await;
    let mut stranger = Operator::of(Authority::new()).await;
    stranger.authority = Authority::new();
    let mut starting = Proxy::with_operator(&stranger, &[]).await;
    until("it says why", || async { starting.log().contains("no stream to the operator") }).await;
    assert!(starting.is_waiting());
    drop(operator);
}
