//! An agent's connection becomes a tunnel: token, admission, challenge, claim.

use std::{
    io,
    net::{SocketAddr, TcpStream as StdTcpStream},
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwapOption;
use policy::{Admission, ReportedVersion};
use route_table::{Fingerprint, Route, RouteRefusal, RouteTable};
use snitun::{
    cipher::Role,
    driver::{Asked, OpeningError, Signal, Tunnel as TunnelFuture, TunnelEnd, server_handshake},
    multiplexer::Violation,
    token::{MAX_TOKEN_LEN, Token, TokenError},
};
use socket2::SockRef;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    task::unconstrained,
    time::{timeout, timeout_at},
};

use super::{
    data_threads::Place,
    host::{Held as HeldInstances, TunnelHost},
    registry::{Claim, Instance, Session, Tunnel},
};
use crate::{
    clock,
    door::Door,
    logging::{TunnelEndLine, log_tunnel_end},
    metrics::{TunnelEndReason, TunnelOpenResult},
    visitor::clients::{ClientPermit, Held},
};

/// Somebody who opened with a token.
#[derive(Debug)]
pub struct Newcomer {
    /// The token, or the part of it that has come.
    pub token: Vec<u8>,
    /// Where it comes from.
    pub address: SocketAddr,
}

/// What a token gives a right to, if the table agrees.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// The instances, or hostnames, and how many tunnels each may have.
    pub holds: Vec<(Arc<str>, u32)>,
    /// The version the agent reported with its session.
    pub reported: Option<ReportedVersion>,
}

/// | table | claims of ours  | route                               | grant                            |
/// |-------|-----------------|-------------------------------------|----------------------------------|
/// | none  | -               | -                                   | every hostname of the token      |
/// | any   | yes             | no route of that id                 | unknown instance                 |
/// | any   | yes             | another generation, or key removed  | old key                          |
/// | any   | none            | no route of that hostname           | unknown instance                 |
/// | any   | any             | not understood, disabled or blocked | refused as such                  |
/// | any   | any             | serves                              | the instance                     |
///
/// Asked when a tunnel opens, and again for every open tunnel whenever the table changes.
pub fn decide(
    table: Option<&RouteTable>,
    names: &[&str],
    claims: Option<&snitun::token::LatchkeyClaims>,
) -> Result<Grant, TunnelOpenResult> {
    let Some(table) = table else {
        // As in the reference, every name is held by one session at a time.
        let holds = names.iter().map(|name| (Arc::from(*name), 1)).collect();
        return Ok(Grant { holds, reported: None });
    };
    let route = match claims {
        Some(claims) => table.by_id(&claims.instance),
        None => names.first().and_then(|name| table.by_host(name)),
    }
    .ok_or(TunnelOpenResult::UnknownInstance)?;
    if let Some(claims) = claims {
        let proven = claims.key.parse::<Fingerprint>().ok();
        let key_is_listed = proven.is_none_or(|key| route.agent_keys.iter().any(|k| k.fingerprint == key));
        if claims.generation != route.generation || !key_is_listed {
            return Err(TunnelOpenResult::OldKey);
        }
    }
    let reported = claims.map(|claims| ReportedVersion::read(&claims.version, route.product.scheme()));
    admit(route, reported.as_ref())?;
    Ok(Grant { holds: vec![(Arc::from(route.id.as_str()), route.tunnels)], reported })
}

fn admit(route: &Route, reported: Option<&ReportedVersion>) -> Result<(), TunnelOpenResult> {
    match route.refusal() {
        Some(RouteRefusal::Disabled) => return Err(TunnelOpenResult::Disabled),
        Some(RouteRefusal::NotUnderstood(_)) => return Err(TunnelOpenResult::NotUnderstood),
        None => {}
    }
    match route.admit(reported) {
        Admission::Admitted { .. } => Ok(()),
        Admission::Refused { .. } | Admission::RefusedUnknown { .. } => Err(TunnelOpenResult::Blocked),
    }
}

/// Why an open tunnel may not go on, if so.
pub fn revoked(table: Option<&RouteTable>, session: &Session) -> Option<TunnelOpenResult> {
    let names: Vec<&str> = session.names.iter().map(String::as_str).collect();
    match decide(table, &names, session.claims.as_ref()) {
        Err(why) => Some(why),
        // The route of a hostname may have become another instance's.
        Ok(grant) => {
            let same = session.holds.iter().all(|held| grant.holds.iter().any(|(name, _)| name == held));
            (!same).then_some(TunnelOpenResult::UnknownInstance)
        }
    }
}

/// Takes somebody in who opened with a token. The task of a tunnel's opening, on the thread that accepts.
pub async fn welcome(
    door: Arc<Door>,
    stream: StdTcpStream,
    newcomer: Newcomer,
    client: Option<ClientPermit>,
    handshake: Held,
) {
    let address = newcomer.address;
    let result = open(&door, stream, newcomer, client, handshake).await;
    let (label, detail) = match result {
        Ok(()) => return,
        Err((label, detail)) => (label, detail),
    };
    door.metrics.tunnel_opens.inc(label);
    tracing::info!(target: "latchkey::tunnel", agent = %address, result = %label, detail, "no tunnel opened");
}

type Failure = (TunnelOpenResult, String);

fn plain(label: TunnelOpenResult) -> Failure {
    (label, String::new())
}

async fn open(
    door: &Arc<Door>,
    stream: StdTcpStream,
    newcomer: Newcomer,
    client: Option<ClientPermit>,
    handshake: Held,
) -> Result<(), Failure> {
    let broken = |error: io::Error| (TunnelOpenResult::Gone, error.to_string());
    if door.is_draining() {
        return Err(plain(TunnelOpenResult::Draining));
    }
    let mut stream = TcpStream::from_std(stream).map_err(broken)?;
    if door.limits.tunnel_window > 0 {
        // Before the agent sends: a window is not taken back.
        SockRef::from(&stream).set_recv_buffer_size(door.limits.tunnel_window).map_err(broken)?;
    }
    let deadline = tokio::time::Instant::now() + door.limits.token();
    let token = read_token(door, &mut stream, newcomer.token, deadline).await?;
    let table = door.table();
    let names: Vec<&str> = token.hostnames().collect();
    let grant = decide(table.as_deref(), &names, token.extra.as_ref()).map_err(plain)?;
    let challenge = server_handshake(&mut stream, token.cipher, &token.aes_key, &token.aes_iv);
    let ciphers = match timeout(door.limits.challenge(), challenge).await {
        Ok(Ok(ciphers)) => ciphers,
        Ok(Err(OpeningError::Io(error))) => return Err(broken(error)),
        Ok(Err(error @ OpeningError::Handshake(_))) => {
            return Err((TunnelOpenResult::BadAnswer, error.to_string()));
        }
        Err(_) => return Err(plain(TunnelOpenResult::Timeout)),
    };
    drop(handshake);
    let (runtime, place) = door.threads.choose().ok_or_else(|| plain(TunnelOpenResult::Overloaded))?;
    let session = Arc::new(Session {
        thread: place.thread(),
        holds: grant.holds.iter().map(|(name, _)| name.clone()).collect(),
        names: token.hostnames().map(str::to_owned).collect(),
        claims: token.extra.clone(),
        reported: grant.reported,
        protocol: token.protocol_version,
        cipher: token.cipher,
        opened: clock::now(),
        address: newcomer.address,
        revoked: std::sync::OnceLock::new(),
        allowed_by: ArcSwapOption::empty(),
        ours: Arc::default(),
    });
    let stream = stream.into_std().map_err(broken)?;
    let (door, holds) = (door.clone(), grant.holds);
    drop(runtime.spawn(async move {
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let held = HeldInstances::default();
        let host = TunnelHost { door: door.clone(), held: held.clone(), ours: session.ours.clone() };
        let (future, tunnel) =
            TunnelFuture::new(Role::Server, stream, ciphers, session.protocol, door.limits.tunnel(), host);
        // The tunnel runs while it is claimed: a holder that is asked may be the same agent's old one.
        drop(tokio::spawn(claim(door.clone(), session.clone(), tunnel.clone(), holds, held.clone())));
        run(door, future, tunnel, session, held, (client, place)).await;
    }));
    Ok(())
}

/// Reads until the token opens. Where one ends cannot be seen: at the deadline, what has come is all of it.
async fn read_token(
    door: &Door,
    stream: &mut TcpStream,
    mut bytes: Vec<u8>,
    deadline: tokio::time::Instant,
) -> Result<Token, Failure> {
    loop {
        let now = clock::unix().as_secs_f64();
        match Token::open(&door.keys.current(), &bytes, now) {
            Ok(token) => return Ok(token),
            Err(error) if error.more_bytes_may_help() && bytes.len() <= MAX_TOKEN_LEN => {
                bytes.reserve(MAX_TOKEN_LEN);
                match timeout_at(deadline, stream.read_buf(&mut bytes)).await {
                    Ok(Ok(0)) | Err(_) => return Err((TunnelOpenResult::BadToken, error.to_string())),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err((TunnelOpenResult::Gone, error.to_string())),
                }
            }
            Err(error @ TokenError::Expired { .. }) => {
                return Err((TunnelOpenResult::Expired, error.to_string()));
            }
            Err(error) => return Err((TunnelOpenResult::BadToken, error.to_string())),
        }
    }
}

/// Claims what the token names, once the challenge was answered.
async fn claim(
    door: Arc<Door>,
    session: Arc<Session>,
    tunnel: Tunnel,
    holds: Vec<(Arc<str>, u32)>,
    held: HeldInstances,
) {
    let mut won: Vec<(Arc<Instance>, u64)> = Vec::new();
    let mut result = TunnelOpenResult::Opened;
    for (name, allowed) in holds {
        let instance = door.registry.get_or_add(&name);
        let mut evict = None;
        loop {
            match instance.claim(&session, &tunnel, allowed, evict.as_ref()) {
                Claim::Won { number, replaced, moved } => {
                    for old in moved {
                        result = TunnelOpenResult::Replaced;
                        old.signal(Signal::Conflict);
                        old.drain();
                    }
                    for old in replaced {
                        if !old.is_same(&tunnel) {
                            result = TunnelOpenResult::Replaced;
                            old.signal(Signal::Conflict);
                            old.end(Asked::Replaced);
                        }
                    }
                    won.push((instance, number));
                    break;
                }
                Claim::HeldBy(holder) => {
                    if timeout(door.limits.conflict(), holder.probe())
                        .await
                        .is_ok_and(|answer| answer.is_ok())
                    {
                        door.metrics.tunnel_opens.inc(TunnelOpenResult::Conflict);
                        release(&won);
                        tunnel.signal(Signal::Conflict);
                        tunnel.end(Asked::Conflict);
                        return;
                    }
                    evict = Some(holder);
                }
            }
        }
    }
    door.metrics.tunnel_opens.inc(result);
    if let Err(won) = held.set(won) {
        release(&won);
    }
    // A tunnel that ended in the meantime has found nothing to give back.
    if tunnel.is_closed() {
        release(held.get().map_or(&[], Vec::as_slice));
    }
    // The table may have changed since the token was looked at.
    if let Some(why) = refusal_now(door.table().as_deref(), &session) {
        end_revoked(&session, &tunnel, why);
    }
}

/// Why the table does not allow an open tunnel any more, if so. A change of one route costs the tunnels of all others no
/// more than a look at theirs.
pub fn refusal_now(table: Option<&RouteTable>, session: &Session) -> Option<TunnelOpenResult> {
    let route = table.zip(session.holds.first()).and_then(|(table, held)| table.by_id(held));
    if route.is_some_and(|route| is_allowed_by(session, route)) {
        return None;
    }
    let refusal = revoked(table, session);
    if refusal.is_none() {
        session.allowed_by.store(route.cloned());
    }
    refusal
}

/// Ends a tunnel that the table does not allow any more.
pub fn end_revoked(session: &Session, tunnel: &Tunnel, why: TunnelOpenResult) {
    // The first reason stays.
    let _ = session.revoked.set(why);
    tunnel.end(Asked::Revoked);
}

fn is_allowed_by(session: &Session, route: &Arc<Route>) -> bool {
    session.allowed_by.load().as_ref().is_some_and(|allowed_by| Arc::ptr_eq(allowed_by, route))
}

fn release(won: &[(Arc<Instance>, u64)]) {
    let now = Instant::now();
    for (instance, number) in won {
        instance.release(*number, now);
    }
}

async fn run(
    door: Arc<Door>,
    future: TunnelFuture<TunnelHost>,
    tunnel: Tunnel,
    session: Arc<Session>,
    held: HeldInstances,
    _counted: (Option<ClientPermit>, Place),
) {
    door.metrics.tunnels.inc();
    let (end, counts) = unconstrained(future).await;
    door.metrics.tunnels.dec();
    let won = held.get().map_or(&[][..], Vec::as_slice);
    release(won);
    let (reason, detail) = reason(&end, session.revoked.get());
    door.metrics.tunnel_ends.inc(reason);
    door.metrics.tunnel_counts(counts);
    let facts = tunnel.facts();
    log_tunnel_end(&TunnelEndLine {
        instance: session.holds.first().map_or("", |name| name),
        session: won.first().map_or(0, |(_, number)| *number),
        agent: Some(session.address.ip()),
        lived: clock::since(session.opened),
        channels: counts.channels,
        bytes_in: facts.to_peer,
        bytes_out: facts.from_peer,
        reason,
        detail: &detail,
    });
}

/// How a tunnel's end reads in logs and metrics.
fn reason(end: &TunnelEnd, revoked: Option<&TunnelOpenResult>) -> (TunnelEndReason, String) {
    let label = match end {
        TunnelEnd::PeerClosed => TunnelEndReason::Agent,
        TunnelEnd::Io(error) => return (TunnelEndReason::Connection, error.to_string()),
        TunnelEnd::Violation(Violation::Silent) => TunnelEndReason::Silent,
        TunnelEnd::Violation(error) => return (TunnelEndReason::Protocol, error.to_string()),
        TunnelEnd::Asked(Asked::Replaced | Asked::Conflict) => TunnelEndReason::Replaced,
        TunnelEnd::Asked(Asked::Drained) => TunnelEndReason::Drained,
        TunnelEnd::Asked(Asked::Revoked) => match revoked {
            Some(TunnelOpenResult::Disabled) => TunnelEndReason::Disabled,
            Some(TunnelOpenResult::Blocked) => TunnelEndReason::Blocked,
            Some(TunnelOpenResult::OldKey) => TunnelEndReason::OldKey,
            Some(TunnelOpenResult::NotUnderstood) => TunnelEndReason::NotUnderstood,
            _ => TunnelEndReason::RouteGone,
        },
        TunnelEnd::Asked(Asked::Stopping) => TunnelEndReason::Shutdown,
    };
    (label, String::new())
}

#[cfg(test)]
mod tests {
    use snitun::{cipher::CipherKind, version::ProtocolVersion};

    use super::*;

    #[test]
    fn a_session_is_looked_at_again_only_when_its_own_route_is_another() {
        let route = |id: &str| Arc::new(Route::new(id.parse().unwrap()));
        let table = RouteTable::from_shared(1, None, [route("homes/lake"), route("homes/hill")]).unwrap();
        let session = Session {
            thread: 0,
            holds: vec!["homes/lake".into()],
            names: Vec::new(),
            address: ([127, 0, 0, 1], 1).into(),
            revoked: std::sync::OnceLock::new(),
            allowed_by: ArcSwapOption::empty(),
            ours: Arc::default(),
            claims: None,
            reported: None,
            protocol: ProtocolVersion::V2,
            cipher: CipherKind::AesGcmSiv,
            opened: clock::now(),
        };
        let lake = |table: &RouteTable| table.by_id("homes/lake").unwrap().clone();
        assert!(!is_allowed_by(&session, &lake(&table)), "nobody has looked yet");
        session.allowed_by.store(Some(lake(&table)));
        let next = table.changed(2, None, [route("homes/hill")], [""; 0]).unwrap();
        assert!(is_allowed_by(&session, &lake(&next)));
        let next = next.changed(3, None, [route("homes/lake")], [""; 0]).unwrap();
        assert!(!is_allowed_by(&session, &lake(&next)), "another one, however much alike");
    }
}
