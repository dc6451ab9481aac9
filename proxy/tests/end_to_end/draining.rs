//! The end of a proxy, and a new one that takes over its port.

use std::time::Duration;

use rustix::process::Signal;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::support::{
    Agent, Proxy, RealAgent, State, Visitor, echoing_instance, get, route, soon, table, token, until,
};

const ID: &str = "homes/lake";
const HOST: &str = "lake.ui.example.com";

async fn is_unready(proxy: &Proxy) {
    until("the proxy is unready", || async { get(proxy.admin, "/readyz").await.0 == 503 }).await;
}

#[tokio::test]
async fn a_new_process_takes_over_and_nobody_notices() {
    let state = State::new();
    let keys = format!(", agentKeys: [{}]", state.key());
    let mut old = Proxy::with_routes(&table(1, &[route(ID, HOST, &keys)]), &["--grace", "24"]).await;
    let _agent =
        RealAgent::join(&old, &state, &["--mode", "passthrough", "--target", &echoing_instance().await]);
    old.held_by(ID, &[1]).await;
    let mut long = Visitor::ask(old.address, HOST).await;
    assert_eq!(long.greeting().await, "instance");

    let (address, (stop, stopped)) = (old.address, watch::channel(false));
    let visitors = tokio::spawn(async move {
        let mut served = 0;
        while !*stopped.borrow() {
            let mut visitor = Visitor::ask(address, HOST).await;
            assert_eq!(visitor.greeting().await, "instance");
            visitor.echo(b"before, while and after").await.unwrap();
            served += 1;
            sleep(Duration::from_millis(5)).await;
        }
        served
    });
    let new = old.successor().await;
    assert_eq!(new.address, old.address);
    old.process.signal(Signal::TERM);
    is_unready(&old).await;
    assert_eq!(get(old.admin, "/livez").await.0, 200);
    new.held_by(ID, &[1]).await;
    long.echo(&vec![7; 100_000]).await.unwrap();
    // The old one goes on for the one that was there before, and for nobody else.
    let accepted = old.metric("latchkey_proxy_visitors_accepted_total").await;
    let before = new.metric("latchkey_proxy_visitors_accepted_total").await;
    until("the new one serves", || async {
        new.metric("latchkey_proxy_visitors_accepted_total").await > before + 20.0
    })
    .await;
    assert!((old.metric("latchkey_proxy_visitors_accepted_total").await - accepted).abs() < f64::EPSILON);
    // Beyond the time in which it still listens.
    let end = Instant::now() + Duration::from_secs(9);
    while Instant::now() < end {
        long.echo(&vec![7; 100_000]).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    assert!(old.process.is_running());
    drop(long);
    assert!(old.process.ended().await.success());
    assert!(old.process.log().contains("\"drained\""), "it did not wait for the grace to end");
    stop.send(true).unwrap();
    let served = visitors.await.expect("every visitor is served");
    assert!(served > 50, "{served}");
    assert_eq!(get(new.admin, "/readyz").await.0, 200);
}

#[tokio::test]
async fn told_twice_it_ends_at_once() {
    let mut proxy = Proxy::start(&["--grace", "300"]).await;
    let agent = Agent::open(proxy.address, "lake", &token(&[HOST])).await;
    let mut visitor = Visitor::ask(proxy.address, HOST).await;
    visitor.greeting().await;
    proxy.process.signal(Signal::TERM);
    is_unready(&proxy).await;
    visitor.echo(b"still here").await.unwrap();
    proxy.process.signal(Signal::TERM);
    proxy.process.ended().await;
    assert!(proxy.process.log().contains("told twice"));
    agent.ended().await;
    assert!(visitor.echo(b"still here").await.is_err());
}

#[tokio::test]
async fn a_stock_agent_is_let_go_after_its_last_visitor() {
    let mut proxy = Proxy::start(&["--grace", "60"]).await;
    let busy = Agent::open(proxy.address, "busy", &token(&["busy.example.com"])).await;
    let idle = Agent::open(proxy.address, "idle", &token(&["idle.example.com"])).await;
    proxy.held_by("idle.example.com", &[1]).await;
    let mut visitor = Visitor::ask(proxy.address, "busy.example.com").await;
    visitor.greeting().await;
    proxy.process.signal(Signal::TERM);
    idle.ended().await;
    visitor.echo(&vec![5; 100_000]).await.unwrap();
    // Alone on its port it serves whoever still comes.
    let mut late = Visitor::ask(proxy.address, "busy.example.com").await;
    assert_eq!(late.greeting().await, "busy 127.0.0.1");
    assert!(Agent::try_open(proxy.address, "new", &token(&["new.example.com"])).await.is_err());
    drop(late);
    visitor.echo(&vec![5; 100_000]).await.unwrap();
    assert!(busy.is_open());
    drop(visitor);
    busy.ended().await;
    assert!(proxy.process.ended().await.success());
}

#[tokio::test]
async fn after_the_grace_everything_ends() {
    let mut proxy = Proxy::start(&["--grace", "3"]).await;
    let mut ours = Agent::open(proxy.address, "ours", &token(&["ours.example.com"])).await.with_our_words();
    let stock = Agent::open(proxy.address, "stock", &token(&["stock.example.com"])).await;
    let mut to_ours = Visitor::ask(proxy.address, "ours.example.com").await;
    let mut to_stock = Visitor::ask(proxy.address, "stock.example.com").await;
    to_ours.greeting().await;
    to_stock.greeting().await;
    let told = Instant::now();
    proxy.process.signal(Signal::TERM);
    ours.hears(snitun::driver::Signal::GoAway).await;
    stock.ended().await;
    let stock_for = told.elapsed();
    to_ours.echo(b"ours may stay").await.unwrap();
    ours.ended().await;
    assert!(stock_for >= Duration::from_secs(2), "{stock_for:?} is before the last third");
    assert!(told.elapsed() >= Duration::from_secs(3));
    assert!(soon("the visitor is cut", to_stock.echo(b"?")).await.is_err());
    assert!(proxy.process.ended().await.success());
}
