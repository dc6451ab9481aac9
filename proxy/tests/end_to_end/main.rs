//! The proxy's binary as a process of its own, spoken to over real sockets by visitors and agents.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "in a test a failed expectation is the message"
)]

mod admin;
mod client_address;
mod draining;
mod drop_in;
mod limits;
mod operator;
mod parking;
mod routes;
mod sessions;
mod support;
