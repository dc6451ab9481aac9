//! What the publisher did, in numbers that only go up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the publisher did since it was made.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The same, while it is counted.
        #[derive(Debug, Default)]
        pub(crate) struct Counting {
            $(pub(crate) $name: Count,)*
        }

        impl Counting {
            pub(crate) fn read(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Tables published.
    published,
    /// Updates sent that hold everything.
    sent_everything,
    /// Updates sent that hold what changed.
    sent_changes,
    /// Bytes of updates sent.
    sent_bytes,
    /// Updates that proxies put in force.
    applied,
    /// Microseconds from publishing a table until a proxy had it in force, over all of `applied`.
    applied_microseconds,
    /// Updates that proxies refused.
    refused,
    /// Updates that were never answered.
    unanswered,
    /// Batches of facts.
    batches,
    /// Facts, or parts of facts, that made no sense or had no room.
    facts_dropped,
    /// Enrolments asked for.
    enrolments,
    /// Enrolments put off because a proxy asked for too many at once.
    enrolments_put_off,
    /// Connections taken.
    connections,
    /// Connections closed at once because there were too many.
    connections_refused,
    /// Connections that did not become TLS 1.3 with a certificate of ours in time.
    handshakes_failed,
    /// Streams that began well.
    streams,
    /// Streams refused for what their first message said, or because it never came.
    streams_refused,
    /// Streams that a newer one of the same proxy took the place of.
    streams_replaced,
}

/// A number that only goes up.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}
