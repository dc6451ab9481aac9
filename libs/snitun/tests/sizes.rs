//! What a tunnel costs before anybody visits: ten thousand idle ones are held in memory.
#![cfg(feature = "tokio")]

use std::{net::IpAddr, time::Duration};

use snitun::driver::{Arrived, ChannelEnd, Host, Signal, Tunnel, TunnelHandle};
use tokio::net::TcpStream;

/// A host that keeps nothing of its own.
struct Small;

impl Host for Small {
    type Stream = TcpStream;
    type Arrival = TcpStream;
    type Ticket = ();

    fn open(&mut self, _: Option<IpAddr>) -> Option<Arrived<TcpStream, ()>> {
        None
    }

    fn admit(&mut self, _: TcpStream) -> Option<(Option<IpAddr>, Arrived<TcpStream, ()>)> {
        None
    }

    fn finished(&mut self, _: TcpStream, (): (), _: ChannelEnd) {}

    fn signal(&mut self, _: Signal) {}

    fn alive(&mut self, _: Duration) {}
}

#[test]
fn an_idle_tunnel_is_small() {
    // The goal is 8 KiB a tunnel with its socket, timer, ciphers and registry entry. The future may have a tenth of
    // that: room for what it holds today and for a few fields, and none for a buffer inside it.
    let tunnel = size_of::<Tunnel<Small>>();
    assert!(tunnel <= 1024, "{tunnel} bytes");
    assert_eq!(size_of::<TunnelHandle<TcpStream>>(), size_of::<usize>());
}
