//! A visitor's connection, from its first byte to its tunnel. In the order of the data path:
//! [`accept`], [`first_bytes`], [`client_hello`], [`choose_route`], [`enter`] (or [`refuse`]).

pub mod accept;
pub mod choose_route;
pub mod client_hello;
pub mod clients;
pub mod enter;
pub mod first_bytes;
pub mod refuse;
