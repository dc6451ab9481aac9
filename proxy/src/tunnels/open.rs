//! An agent's connection becomes a tunnel: token, admission, challenge, claim.

use std::{
    io,
    net::{SocketAddr, TcpStream as StdTcpStream},
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwapOption;
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
    allowed::{decide, refusal_now},
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
        proven: grant.proven,
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

/// Ends a tunnel that the table does not allow any more.
pub fn end_revoked(session: &Session, tunnel: &Tunnel, why: TunnelOpenResult) {
    // The first reason stays.
    let _ = session.revoked.set(why);
    tunnel.end(Asked::Revoked);
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
