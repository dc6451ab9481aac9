//! A connection comes in: who is it, what does it want, where does it go?
//!
//! The usual visitor is dealt with in one go: accepted, read once, routed, handed to its tunnel, without
//! a task or a place in this reactor. Whoever does not say enough at once gets a task and a time limit.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream as StdTcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{SocketFlags, acceptfrom_with},
};
use tokio::{
    io::{AsyncReadExt, unix::AsyncFd},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    choose_route::{Choice, choose_route},
    clients::{ClientPermit, ClientRefusal, Held},
    enter::{Rules, Ticket, Visitor, enter, hand_over},
    first_bytes::{Opening, Unwrapped, classify, unwrap_proxy_header},
    refuse::{Refusal, refuse},
};
use crate::{
    door::Door,
    logging::log_visitor_refused,
    metrics::RefusalReason,
    tunnels::open::{self, Newcomer},
};

/// Connections taken in one go before tunnels on this thread get their turn.
const BATCH: usize = 32;
/// Pause after the process ran out of descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Accepts until the task is dropped.
pub async fn accept_all(door: Arc<Door>, listener: Arc<AsyncFd<TcpListener>>) {
    loop {
        let Ok(mut ready) = listener.readable().await else { return };
        for taken in 0..=BATCH {
            if taken == BATCH {
                tokio::task::yield_now().await;
                break;
            }
            match accept_one(listener.get_ref()) {
                Ok((stream, peer)) => come_in(&door, stream, peer),
                Err(Errno::WOULDBLOCK) => {
                    ready.clear_ready();
                    break;
                }
                // The connection was gone before it was taken.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again in a moment");
                    sleep(OUT_OF_DESCRIPTORS).await;
                    break;
                }
            }
        }
    }
}

fn accept_one(listener: &TcpListener) -> Result<(StdTcpStream, SocketAddr), Errno> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(Errno::CONNABORTED)?;
    Ok((stream.into(), SocketAddr::new(peer.ip().to_canonical(), peer.port())))
}

/// A connection that has not said what it is.
#[derive(Debug)]
struct Caller {
    stream: StdTcpStream,
    /// Who it is, as far as is known.
    address: SocketAddr,
    /// It may name somebody else as the real peer.
    is_trusted_proxy: bool,
    client: Option<ClientPermit>,
    handshake: Held,
}

fn come_in(door: &Arc<Door>, stream: StdTcpStream, peer: SocketAddr) {
    let now = Instant::now();
    let Some(handshake) = door.handshakes.hold(door.limits.max_handshakes) else {
        return drop_caller(door, peer.ip(), RefusalReason::Handshakes);
    };
    let is_trusted_proxy = door.limits.is_trusted_proxy(peer.ip());
    let client = if is_trusted_proxy {
        None
    } else {
        match admit_client(door, peer.ip(), now) {
            Ok(client) => client,
            Err(why) => return drop_caller(door, peer.ip(), why),
        }
    };
    let mut caller = Caller { stream, address: peer, is_trusted_proxy, client, handshake };
    let mut buffer = byte_relay::scratch::take();
    let read = caller.stream.read(&mut buffer);
    match read {
        Ok(0) => {}
        Ok(count) => {
            let bytes = buffer.get(..count).unwrap_or_default();
            if let Some(caller) = look(door, caller, bytes, now) {
                wait_for_more(door, caller, bytes.to_vec());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_more(door, caller, Vec::new()),
        Err(_) => {}
    }
    byte_relay::scratch::give_back(buffer);
}

/// Nothing is counted for addresses that speak for many.
fn admit_client(door: &Door, address: IpAddr, now: Instant) -> Result<Option<ClientPermit>, RefusalReason> {
    if door.limits.is_unlimited(address) {
        return Ok(None);
    }
    door.clients.admit(address, now).map(Some).map_err(|refused| match refused {
        ClientRefusal::TooMany => RefusalReason::ClientConnections,
        ClientRefusal::TooFast => RefusalReason::ClientRate,
    })
}

/// Hangs up on somebody who has not even said whom they want.
fn drop_caller(door: &Door, address: IpAddr, why: RefusalReason) {
    door.metrics.visitors_refused.inc(why);
    log_visitor_refused(None, None, Some(address), why);
}

fn wait_for_more(door: &Arc<Door>, caller: Caller, gathered: Vec<u8>) {
    let door = door.clone();
    drop(tokio::spawn(async move {
        let address = caller.address.ip();
        let limit = door.limits.hello();
        if timeout(limit, gather(&door, caller, gathered)).await.is_err() {
            drop_caller(&door, address, RefusalReason::HelloTimeout);
        }
    }));
}

async fn gather(door: &Arc<Door>, mut caller: Caller, mut gathered: Vec<u8>) {
    let cap = door.limits.max_hello + byte_relay::proxy_protocol::MAX_HEADER;
    while gathered.len() <= cap {
        let Ok(mut stream) = TcpStream::from_std(caller.stream) else { return };
        gathered.reserve(2048);
        match stream.read_buf(&mut gathered).await {
            Ok(count) if count > 0 => {}
            _ => return,
        }
        let Ok(stream) = stream.into_std() else { return };
        caller.stream = stream;
        match look(door, caller, &gathered, Instant::now()) {
            None => return,
            Some(back) => caller = back,
        }
    }
}

/// Looks at what was said so far; gives the caller back if that is too little.
fn look(door: &Arc<Door>, mut caller: Caller, bytes: &[u8], now: Instant) -> Option<Caller> {
    let (mut own, mut address) = (bytes, caller.address);
    if caller.is_trusted_proxy {
        match unwrap_proxy_header(bytes) {
            Unwrapped::NeedMore => return Some(caller),
            Unwrapped::Bytes { own: rest, source } => (own, address) = (rest, source.unwrap_or(address)),
            Unwrapped::Invalid(why) => {
                tracing::debug!(proxy = %address, why, "a broken PROXY header");
                drop_caller(door, address.ip(), RefusalReason::ProxyHeader);
                return None;
            }
        }
    }
    match classify(own, door.limits.max_hello) {
        Opening::NeedMore => return Some(caller),
        Opening::Neither(why) => {
            tracing::debug!(peer = %address, why, "a connection that is not ours");
            drop_caller(door, address.ip(), RefusalReason::NotTls);
            return None;
        }
        Opening::Token(token) => {
            let newcomer = Newcomer { token: token.to_vec(), address };
            let Caller { stream, client, handshake, .. } = caller;
            drop(tokio::spawn(open::welcome(door.clone(), stream, newcomer, client, handshake)));
            return None;
        }
        Opening::Tls(hello) => {
            if caller.is_trusted_proxy && caller.client.is_none() {
                match admit_client(door, address.ip(), now) {
                    Ok(client) => caller.client = client,
                    Err(why) => {
                        drop_caller(door, address.ip(), why);
                        return None;
                    }
                }
            }
            let table = door.table();
            let choice =
                choose_route(table.as_deref(), door.domain.as_deref(), &hello, address.ip(), |route| {
                    door.registry.get(route.id.as_str()).and_then(|instance| instance.reported())
                });
            follow(door, caller, address, own, choice, now);
        }
    }
    None
}

fn follow(door: &Arc<Door>, caller: Caller, address: SocketAddr, own: &[u8], choice: Choice, now: Instant) {
    let Caller { stream, client, handshake, .. } = caller;
    // It has shown what it is.
    drop(handshake);
    let (why, host) = match choice {
        Choice::SessionApi => {
            if let Some(api) = &door.api {
                return api.serve(stream, own.to_vec(), address, client);
            }
            (Refusal::UnknownHost, String::new())
        }
        Choice::Refused { why, host } => (why, host),
        Choice::Instance { route, host, validation } => {
            let rules = Rules {
                limits: route.as_ref().map_or(door.limits.without_table(), |route| route.limits),
                parks: route.as_ref().is_none_or(|route| route.park_visitors),
                validation,
            };
            let name = route.as_ref().map_or(host.as_str(), |route| route.id.as_str());
            // Without a table anybody can ask for any name: only those a tunnel has held get a place.
            let instance = if route.is_some() || door.is_young(now) {
                Some(door.registry.get_or_add(name))
            } else {
                door.registry.get(name)
            };
            match instance {
                None => (Refusal::UnknownHost, host),
                Some(instance) => {
                    match Ticket::take(door, instance, host.clone(), address.ip(), client, &rules, now) {
                        Err(why) => (why, host),
                        Ok(ticket) => {
                            door.metrics.visitors_accepted.inc();
                            let visitor = Visitor { stream, address, first: own.to_vec(), ticket };
                            if let Some(visitor) = hand_over(visitor) {
                                let door = door.clone();
                                drop(tokio::spawn(async move { enter(&door, visitor).await }));
                            }
                            return;
                        }
                    }
                }
            }
        }
    };
    door.metrics.visitors_refused.inc(why.reason());
    log_visitor_refused(None, Some(&host), Some(address.ip()), why.reason());
    refuse(stream, why);
}
