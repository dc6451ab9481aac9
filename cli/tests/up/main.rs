//! `latchkey up`, `join` and `status` as processes of their own, spoken to over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "in a test a failed expectation is the message"
)]

mod agent;
mod edits;
mod first_minute;
mod joining;
mod support;
