//! What a tunnel of the proxy does with its visitors.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use byte_relay::leaving::leave;
use snitun::driver::{Arrived, ChannelEnd, CloseReason, Host, Signal};
use tokio::net::TcpStream;

use super::registry::Instance;
use crate::{
    door::Door,
    visitor::enter::{Ticket, Visitor, enter},
};

/// The instances a tunnel holds, each with the number of its session there. Empty until it has won them.
pub type Held = Arc<OnceLock<Vec<(Arc<Instance>, u64)>>>;

/// The proxy's side of one tunnel.
#[derive(Debug)]
pub struct TunnelHost {
    pub(super) door: Arc<Door>,
    pub(super) held: Held,
    /// The peer said that it understands our words.
    pub(super) ours: Arc<OnceLock<()>>,
}

impl Host for TunnelHost {
    type Stream = TcpStream;
    type Arrival = Visitor;
    type Ticket = Ticket;

    fn open(&mut self, _: Option<IpAddr>) -> Option<Arrived<TcpStream, Ticket>> {
        // Agents open no channels.
        None
    }

    fn admit(&mut self, visitor: Visitor) -> Option<(Option<IpAddr>, Arrived<TcpStream, Ticket>)> {
        let Visitor { stream, address, first, ticket } = visitor;
        let stream = TcpStream::from_std(stream).ok()?;
        Some((Some(address.ip()), Arrived { stream, first, ticket }))
    }

    fn finished(&mut self, stream: TcpStream, ticket: Ticket, end: ChannelEnd) {
        self.door.metrics.channel_ended(&end);
        ticket.log_end(&end);
        if end.why == CloseReason::Peer
            && let Ok(stream) = stream.into_std()
        {
            leave(stream);
        }
    }

    fn missed(&mut self, visitor: Visitor) {
        let door = self.door.clone();
        drop(tokio::spawn(async move { enter(&door, visitor).await }));
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::GoAway => {
                for (instance, number) in self.held.get().into_iter().flatten() {
                    instance.leaving(*number);
                }
            }
            Signal::Latchkey => {
                // Said once or twice: it stays true.
                let _ = self.ours.set(());
            }
            // Nothing an agent could mean by it.
            Signal::Conflict => {}
        }
    }

    fn alive(&mut self, round_trip: Duration) {
        self.door.metrics.pong(round_trip);
    }
}
