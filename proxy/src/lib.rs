//! The internet-facing proxy: visitors and tunnels on one port. It reads the name in a visitor's TLS
//! hello, finds the tunnel of the instance, and passes the bytes on. It holds no key of any instance.
//!
//! The path of a byte: [`visitor::accept`] -> [`visitor::choose_route`] -> [`visitor::enter`] ->
//! [`tunnels::host`] -> the agent. The path of an agent: [`visitor::accept`] -> [`tunnels::open`] ->
//! [`tunnels::registry`].

pub mod admin;
pub mod app;
pub mod clock;
pub mod door;
pub mod drain;
pub mod fernet_keys;
pub mod listen;
pub mod logging;
pub mod metrics;
#[cfg(feature = "operator")]
pub mod operator_link;
pub mod proxy;
pub mod routes;
pub mod session_api;
pub mod settings;
mod source;
pub mod tunnels;
pub mod view;
pub mod visitor;
