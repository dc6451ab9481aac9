//! The publisher over real connections: TCP, TLS 1.3, HTTP/2, gRPC.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod admission;
mod authority;
mod enrolling;
mod proxy;
mod real_proxy;
mod rig;
mod seen;
mod tables;
