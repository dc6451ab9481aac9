//! Terminate: a visitor's bytes go through a pipe to the HTTP server in this process, which ends the TLS.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::duplex;
use tokio::runtime::Handle;

use super::ChannelStream;
use crate::http::HttpFront;

/// Bytes that may wait in a pipe, each way.
const PIPE: usize = 64 * 1024;

/// Hands visitors to the HTTP server.
#[derive(Debug)]
pub struct Terminate {
    front: Arc<HttpFront>,
    runtime: Handle,
}

impl Terminate {
    /// The server's tasks run on `runtime`.
    pub fn new(front: Arc<HttpFront>, runtime: Handle) -> Self {
        Self { front, runtime }
    }

    /// A pipe for a visitor.
    pub fn open(&self, visitor: Option<IpAddr>) -> ChannelStream {
        let (ours, servers) = duplex(PIPE);
        self.front.serve(servers, visitor, &self.runtime);
        ChannelStream::Pipe(ours)
    }

    /// The server.
    pub fn front(&self) -> &Arc<HttpFront> {
        &self.front
    }
}
