//! Passthrough: a visitor's bytes go to the instance as they come, TLS and all.
//!
//! This is the path where every microsecond counts: a connection costs a socket, and neither a task nor a lookup.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use byte_relay::last_words::say_goodbye;
use snitun::driver::{ChannelEnd, CloseReason};

use super::ChannelStream;
use super::forward_client_address::proxy_header;
use crate::target::{Begun, Target};

/// Hands visitors to the target.
#[derive(Debug)]
pub struct Passthrough {
    target: Arc<Target>,
    send_proxy: bool,
    /// The target's absence is told once, not per visitor.
    absence_told: AtomicBool,
}

impl Passthrough {
    /// To `target`, with a PROXY v2 header first if wanted.
    pub fn new(target: Arc<Target>, send_proxy: bool) -> Self {
        Self { target, send_proxy, absence_told: AtomicBool::new(false) }
    }

    /// Begins a connection for a visitor, and says what goes before the visitor's bytes.
    pub fn open(&self, visitor: Option<IpAddr>) -> Option<(ChannelStream, Vec<u8>)> {
        let stream = match self.target.begin_connect() {
            Ok(Begun::Tcp(stream)) => ChannelStream::Tcp(stream),
            Ok(Begun::Unix(stream)) => ChannelStream::Unix(stream),
            Err(error) => {
                self.tell_absence(&error);
                return None;
            }
        };
        let first = if self.send_proxy { proxy_header(visitor, self.target.address()) } else { Vec::new() };
        Some((stream, first))
    }

    /// Takes a stream back when its channel has ended.
    pub fn finished(&self, stream: ChannelStream, end: &ChannelEnd) {
        match end.why {
            // It failed before the instance said anything: most likely it never connected.
            CloseReason::LocalError(kind) if end.to_peer == 0 => {
                self.target.failed();
                self.tell_absence(&kind.into());
            }
            _ if end.to_peer > 0 => self.absence_told.store(false, Ordering::Relaxed),
            _ => {}
        }
        if let ChannelStream::Tcp(stream) = stream {
            // To close with bytes unread is a reset, which can overtake what the visitor said last.
            if end.why == CloseReason::Peer && matches!(stream.try_read(&mut [0]), Ok(1..)) {
                tokio::spawn(say_goodbye(stream));
            }
        }
    }

    fn tell_absence(&self, error: &io::Error) {
        if !self.absence_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target = %self.target.spec(), %error,
                "cannot connect to the instance: check that it runs and listens there"
            );
        }
    }
}
