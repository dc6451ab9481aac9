//! Who gets in, and who does not.

use std::time::Duration;

use latchkey_operator::publish::Limits;
use operator_link::wire;
use operator_link::wire::from_proxy::Message;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tonic::Code;

use crate::authority::{Authority, Identity};
use crate::proxy::{Proxy, message};
use crate::rig::{Rig, soon};

/// Connects and says hello; TLS 1.3 tells a client only then that its certificate is not taken.
async fn try_out(
    rig: &Rig,
    identity: Option<Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Result<(), String> {
    let tls = rig.authority.client(identity, version);
    let mut proxy = soon(Proxy::connect(rig.address, tls)).await?;
    soon(proxy.hello("proxy-0", 1)).await.map_err(|status| status.to_string())
}

#[tokio::test]
async fn only_with_a_certificate_of_the_installation_and_tls_1_3() {
    let rig = Rig::start(Limits::default()).await;
    let ours = || Some(rig.authority.identity(&["proxy-0", "proxy-1"]));
    let foreign = Some(Authority::new().identity(&["proxy-0"]));
    assert!(try_out(&rig, None, &TLS13).await.is_err());
    assert!(try_out(&rig, foreign, &TLS13).await.is_err());
    assert!(try_out(&rig, ours(), &TLS12).await.is_err());
    rig.until_counted(|counters| counters.handshakes_failed == 3).await;
    assert_eq!(rig.publisher.counters().streams, 0);
    try_out(&rig, ours(), &TLS13).await.unwrap();
    assert_eq!(rig.publisher.counters().streams, 1);
}

#[tokio::test]
async fn only_under_a_name_of_the_certificate() {
    let rig = Rig::start(Limits::default()).await;
    let tls = rig.authority.client(Some(rig.authority.identity(&["proxy-0", "proxy-1"])), &TLS13);
    let mut proxy = soon(Proxy::connect(rig.address, tls)).await.unwrap();
    for (name, code) in [
        ("proxy-2", Some(Code::PermissionDenied)),
        ("proxy-", Some(Code::PermissionDenied)),
        ("", Some(Code::PermissionDenied)),
        ("proxy-1", None),
    ] {
        assert_eq!(soon(proxy.hello(name, 1)).await.err().map(|status| status.code()), code, "{name}");
    }
    assert_eq!(rig.publisher.counters().streams_refused, 3);
}

#[tokio::test]
async fn hello_comes_first_and_soon() {
    let rig = Rig::start(Limits { hello: Duration::from_millis(50), ..Limits::default() }).await;
    let tls = rig.authority.client(Some(rig.authority.identity(&["proxy-0"])), &TLS13);
    let mut proxy = soon(Proxy::connect(rig.address, tls)).await.unwrap();
    let health = message(Message::Health(wire::Health { ready: true, tunnels: 1 }));
    for (first, code) in [(Some(health), Code::InvalidArgument), (None, Code::DeadlineExceeded)] {
        assert_eq!(soon(proxy.open(first)).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn a_new_process_takes_the_place_of_the_old_one() {
    let rig = Rig::start(Limits::default()).await;
    let mut older = rig.attach("proxy-0", 1).await;
    older.next().await.unwrap();
    let mut newer = rig.attach("proxy-0", 2).await;
    newer.next().await.unwrap();
    assert_eq!(older.next().await.unwrap_err().code(), Code::Aborted);
    let proxies = rig.publisher.proxies();
    assert_eq!((proxies.len(), proxies[0].incarnation, &*proxies[0].name), (1, 2, "proxy-0"));
    assert_eq!(rig.publisher.counters().streams_replaced, 1);
}

#[tokio::test]
async fn connections_are_bounded_and_handshakes_timed() {
    let handshake = Duration::from_secs(1);
    let rig = Rig::start(Limits { connections: 1, handshake, ..Limits::default() }).await;
    // One that says nothing holds the only place.
    let silent = TcpStream::connect(rig.address).await.unwrap();
    rig.until_counted(|counters| counters.connections == 1).await;
    assert!(try_out(&rig, Some(rig.authority.identity(&["proxy-0"])), &TLS13).await.is_err());
    assert_eq!(rig.publisher.counters().connections_refused, 1);
    rig.until_counted(|counters| counters.handshakes_failed == 1).await;
    // Now there is room again, as soon as the operator has noticed.
    let again = async {
        while try_out(&rig, Some(rig.authority.identity(&["proxy-0"])), &TLS13).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(Box::pin(again)).await;
    drop(silent);
}
