//! How what happens is counted.

use std::time::Duration;

use snitun::{
    driver::{ChannelEnd, CloseReason},
    multiplexer::Counts,
};

use super::{Direction, Metrics, ResetCause};
use crate::visitor::enter::outcome;

impl Metrics {
    /// A visitor's channel ended.
    pub fn channel_ended(&self, end: &ChannelEnd) {
        self.visitors_ended.inc(outcome(end.why));
        self.visitor_duration.observe(end.lived.as_secs_f64());
        self.bytes.add(Direction::FromVisitor, end.to_peer);
        self.bytes.add(Direction::ToVisitor, end.from_peer);
        let reset = match end.why {
            CloseReason::Overflow => ResetCause::ChannelFull,
            CloseReason::TooMany => ResetCause::TooManyChannels,
            CloseReason::LocalError(_) => ResetCause::VisitorError,
            CloseReason::Idle => ResetCause::Idle,
            CloseReason::TunnelEnded => ResetCause::TunnelEnded,
            CloseReason::LocalEnd | CloseReason::Peer => return,
        };
        self.channel_resets.inc(reset);
    }

    /// An agent answered a ping.
    pub fn pong(&self, round_trip: Duration) {
        self.pong_round_trip.observe(round_trip.as_secs_f64());
    }

    /// What a tunnel did, at its end.
    pub fn tunnel_counts(&self, counts: Counts) {
        self.pauses.inc_by(counts.pauses_received);
    }
}
