//! How much the publisher keeps and takes, and how long it waits.

use std::time::Duration;

/// The publisher's settings. The defaults suit 100,000 instances and a handful of proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Tables kept to tell proxies what changed since. One whose table is older gets everything.
    pub kept_tables: usize,
    /// Routes of older tables kept for the same end, in all: each may hold memory that the newest table does not.
    pub kept_changes: usize,
    /// Connections at once.
    pub connections: usize,
    /// Streams at once on a connection. A proxy needs one.
    pub streams_per_connection: u32,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the first message of a stream.
    pub hello: Duration,
    /// A proxy to which nothing was said for so long gets a ping.
    pub ping_every: Duration,
    /// For a proxy to put an update in force and say so. One that needs longer is hung up on, and dials anew.
    pub answer: Duration,
    /// Between two tries with a proxy that refused even everything.
    pub refused_pause: Duration,
    /// How long the tunnels of a proxy whose stream ended still count as up.
    pub grace: Duration,
    /// Enrolments at once for one proxy; more are told to try again.
    pub enrolments_per_proxy: usize,
    /// For one enrolment.
    pub enrolment: Duration,
    /// Instances that a proxy may tell of although the newest table does not name them: a table may have lost an
    /// instance for a moment, and proxies tell a thing once.
    pub strangers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            kept_tables: 64,
            kept_changes: 50_000,
            connections: 256,
            streams_per_connection: 4,
            handshake: Duration::from_secs(10),
            hello: Duration::from_secs(5),
            ping_every: Duration::from_secs(10),
            answer: Duration::from_mins(1),
            refused_pause: Duration::from_secs(5),
            grace: Duration::from_secs(15),
            enrolments_per_proxy: 32,
            enrolment: Duration::from_secs(30),
            strangers: 4_096,
        }
    }
}
