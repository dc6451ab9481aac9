//! The contract between the operator and its proxies (`proto/latchkey/link/v1/link.proto`): the messages, and what they
//! mean. Pure: who opens connections, and when, is the operator's and the proxy's own business.
//!
//! The operator writes tables with an [`UpdateWriter`], part by part; a proxy puts the parts together with an
//! [`UpdateReader`] and gets its next [`route_table::RouteTable`]. What is read from the wire is bounded and checked
//! like a routes file.

pub mod limits;
mod position;
mod read_route;
mod reader;
mod secret;
mod write_route;
mod writer;

/// The messages, generated: `cargo run -p operator-link --example generate`.
#[expect(
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "generated.rs"]
pub mod wire;

pub use position::Position;
pub use reader::{Read, ReadError, UpdateReader};
pub use route_table::Relisting;
pub use writer::{Changes, UpdateWriter, Written};

/// The highest contract this build knows.
pub const CONTRACT: u32 = 2;
/// The contract since which routes are given another list of blocks all at once.
pub const RELISTS_SINCE: u32 = 2;
