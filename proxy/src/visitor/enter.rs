//! A visitor that may come in finds the tunnel of the instance, or waits for it.

use std::{
    net::{IpAddr, SocketAddr, TcpStream as StdTcpStream},
    sync::Arc,
    time::Instant,
};

use route_table::Limits as RouteLimits;
use snitun::driver::{ChannelEnd, CloseReason};
use tokio::{io::Interest, net::TcpStream, time::timeout};

use super::{
    clients::{Client, ClientPermit, Held, Rate},
    refuse::{Refusal, refuse},
};
use crate::{
    door::Door,
    logging::{VisitorEnd, log_visitor_end, log_visitor_refused},
    metrics::{RefusalReason, VisitorOutcome},
    tunnels::registry::Instance,
};

/// A visitor on its way to a tunnel.
#[derive(Debug)]
pub struct Visitor {
    /// Its connection, in no reactor.
    pub stream: StdTcpStream,
    /// Who it is.
    pub address: SocketAddr,
    /// What was read of it: its hello, for the instance.
    pub first: Vec<u8>,
    /// What it counts against, and what the log says of it.
    pub ticket: Ticket,
}

/// What a visitor holds while it is connected.
#[derive(Debug)]
pub struct Ticket {
    instance: Arc<Instance>,
    host: String,
    address: IpAddr,
    parks: bool,
    _client: Option<ClientPermit>,
    _seat: Held,
}

/// Validations of one instance's certificate in a minute, from all authorities together.
const VALIDATIONS: Rate = Rate { per_minute: 30, burst: 30 };
/// They all count as one client.
const ALL_AUTHORITIES: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

impl Ticket {
    /// Counts a visitor against the instance's limits. `limits` are the route's; `None` without a table.
    pub fn take(
        door: &Door,
        instance: Arc<Instance>,
        host: String,
        address: IpAddr,
        client: Option<ClientPermit>,
        rules: &Rules,
        now: Instant,
    ) -> Result<Self, Refusal> {
        // The address of an instance in memory names it for as long as somebody holds it.
        let place = Arc::as_ptr(&instance) as usize;
        let (rate, who, refused) = if rules.validation {
            (VALIDATIONS, Client::from(ALL_AUTHORITIES), Refusal::ValidationTooFast)
        } else {
            let per_minute = rules.limits.new_connections_per_minute_per_client;
            (Rate { per_minute, burst: per_minute }, Client::from(address), Refusal::TooFast)
        };
        let unlimited = !rules.validation && door.limits.is_unlimited(address);
        if !unlimited && !door.admit_rate(place, who, rate, now) {
            return Err(refused);
        }
        let seat = instance.visitors.hold(rules.limits.max_connections).ok_or(Refusal::InstanceFull)?;
        let parks = rules.parks && !rules.validation;
        Ok(Self { instance, host, address, parks, _client: client, _seat: seat })
    }

    /// One line for a connection's end.
    pub fn log_end(&self, end: &ChannelEnd) {
        log_visitor_end(&VisitorEnd {
            instance: &self.instance.name,
            hostname: &self.host,
            visitor: Some(self.address),
            bytes_in: end.to_peer,
            bytes_out: end.from_peer,
            lived: end.lived,
            by: outcome(end.why),
        });
    }
}

/// What the route says of its visitors.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The limits of the instance.
    pub limits: RouteLimits,
    /// May visitors wait for its tunnel?
    pub parks: bool,
    /// This visitor validates a certificate.
    pub validation: bool,
}

/// How a channel's end reads in logs and metrics.
pub const fn outcome(why: CloseReason) -> VisitorOutcome {
    match why {
        CloseReason::LocalEnd => VisitorOutcome::Visitor,
        CloseReason::LocalError(_) => VisitorOutcome::VisitorError,
        CloseReason::Peer => VisitorOutcome::Instance,
        CloseReason::Overflow | CloseReason::TooMany => VisitorOutcome::Buffers,
        CloseReason::Idle => VisitorOutcome::Idle,
        CloseReason::TunnelEnded => VisitorOutcome::Tunnel,
    }
}

/// Hands a visitor to a tunnel of the instance; gives it back when there is none.
pub fn hand_over(mut visitor: Visitor) -> Option<Visitor> {
    // A tunnel that closes at this very moment is not chosen a second time.
    while let Some(tunnel) = visitor.ticket.instance.choose() {
        match tunnel.send_visitor(visitor) {
            Ok(()) => return None,
            Err(back) => visitor = back,
        }
    }
    Some(visitor)
}

/// Hands a visitor to a tunnel, or lets it wait for one.
pub async fn enter(door: &Arc<Door>, visitor: Visitor) {
    let Some(visitor) = hand_over(visitor) else { return };
    let now = Instant::now();
    let instance = visitor.ticket.instance.clone();
    let window = door.limits.held_lately();
    if !visitor.ticket.parks || !(instance.held_within(window, now) || door.is_young(now)) {
        return turn_away(door, visitor, Refusal::NoTunnel);
    }
    let in_all = door.parked.hold(door.limits.max_parked);
    let here = instance.parked.hold(door.limits.max_parked_per_instance);
    let address = visitor.ticket.address;
    let unlimited = door.limits.is_unlimited(address);
    let of_address = if unlimited { Ok(None) } else { door.parked_clients.admit(address, now).map(Some) };
    let (Some(_in_all), Some(_here), Ok(_of_address)) = (in_all, here, of_address) else {
        return turn_away(door, visitor, Refusal::ParkingFull);
    };
    door.metrics.parked.inc();
    let outcome = timeout(door.limits.park(), wait(&instance, visitor)).await;
    door.metrics.parked.dec();
    match outcome {
        Ok(Waited::Served) => {
            door.metrics.parked_served.inc();
        }
        Ok(Waited::Gone) => {
            door.metrics.visitors_refused.inc(RefusalReason::VisitorGone);
        }
        Ok(Waited::Broken) => {}
        // The visitor was dropped with the waiting; it was told nothing, so it is told by wait() itself.
        Err(_) => {
            door.metrics.parked_timed_out.inc();
        }
    }
}

enum Waited {
    Served,
    Gone,
    Broken,
}

/// A parked visitor that is dropped before a tunnel came is refused.
struct Parked(Option<(Ticket, Vec<u8>, SocketAddr, TcpStream)>);

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some((ticket, _, address, stream)) = self.0.take()
            && let Ok(stream) = stream.into_std()
        {
            log_visitor_refused(
                Some(&ticket.instance.name),
                Some(&ticket.host),
                Some(address.ip()),
                Refusal::NotBack.reason(),
            );
            refuse(stream, Refusal::NotBack);
        }
    }
}

async fn wait(instance: &Arc<Instance>, visitor: Visitor) -> Waited {
    let Visitor { stream, address, first, ticket } = visitor;
    let Ok(stream) = TcpStream::from_std(stream) else { return Waited::Broken };
    let mut parked = Parked(Some((ticket, first, address, stream)));
    loop {
        let arrived = instance.arrived.notified();
        tokio::pin!(arrived);
        arrived.as_mut().enable();
        if instance.choose().is_none() {
            let Some((.., stream)) = &parked.0 else { return Waited::Broken };
            tokio::select! {
                () = &mut arrived => {}
                () = hung_up(stream) => {
                    parked.0 = None;
                    return Waited::Gone;
                }
            }
        }
        let Some((ticket, first, address, stream)) = parked.0.take() else { return Waited::Broken };
        let Ok(stream) = stream.into_std() else { return Waited::Broken };
        match hand_over(Visitor { stream, address, first, ticket }) {
            None => return Waited::Served,
            Some(Visitor { stream, address, first, ticket }) => {
                let Ok(stream) = TcpStream::from_std(stream) else { return Waited::Broken };
                parked.0 = Some((ticket, first, address, stream));
            }
        }
    }
}

/// Returns when the visitor hung up; never for one that waits, or that says more while it waits.
async fn hung_up(stream: &TcpStream) {
    let mut byte = [0];
    match stream.ready(Interest::READABLE).await {
        Ok(_) if matches!(stream.peek(&mut byte).await, Ok(1)) => std::future::pending().await,
        _ => {}
    }
}

/// Refuses a visitor that had a ticket.
fn turn_away(door: &Door, visitor: Visitor, why: Refusal) {
    let ticket = &visitor.ticket;
    door.metrics.visitors_refused.inc(why.reason());
    log_visitor_refused(
        Some(&ticket.instance.name),
        Some(&ticket.host),
        Some(visitor.address.ip()),
        why.reason(),
    );
    refuse(visitor.stream, why);
}
