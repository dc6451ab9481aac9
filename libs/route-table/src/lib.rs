//! What a proxy knows of every instance, and how it finds one by name, id or agent key.
//!
//! ```
//! use route_table::RouteTable;
//!
//! let table = RouteTable::parse(
//!     r#"
//! revision: 7
//! domain: ui.example.com
//! routes:
//! - id: homes/lake-house
//!   hostnames: [lake-house.ui.example.com]
//!   version: "2020.12.1"
//!   denyNetworks: [198.51.100.0/24]
//!   blocks:
//!   - {name: core-2021-1-4, versions: ["<=2021.1.4"], reason: Directory traversal}
//! "#,
//! )?;
//! let route = table.by_host("Lake-House.ui.example.com.").ok_or("no such host")?;
//! assert!(!route.admits_network("198.51.100.9".parse()?));
//! assert!(!route.admit(None).is_admitted());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agent_key;
mod error;
mod host_name;
mod network;
mod parse;
mod raw;
mod relisting;
mod route;
mod table;
mod text_form;
mod write;

pub use agent_key::{AgentKey, Fingerprint, FingerprintError};
pub use error::{Position, RouteError, TableError};
pub use host_name::{HostName, HostNameError, MAX_HOST_NAME_LENGTH};
pub use network::{Cidr, CidrError};
pub use relisting::Relisting;
pub use route::{InstanceId, InstanceIdError, Limits, MAX_ID_PART_LENGTH, Route, RouteRefusal, RouteTerms};
pub use table::{RouteTable, SESSION_LABEL};

/// Largest routes file.
pub const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;
/// Most routes in a table.
pub const MAX_ROUTES: usize = 1_000_000;
/// Most host names of a route.
pub const MAX_HOST_NAMES_PER_ROUTE: usize = 64;
/// Most version blocks of a route.
pub const MAX_BLOCKS_PER_ROUTE: usize = 1_000;
/// Most ranges of a version block.
pub const MAX_RANGES_PER_BLOCK: usize = 64;
/// Most accepted blocks of a route.
pub const MAX_ACCEPTED_PER_ROUTE: usize = 1_000;
/// Most networks in each list of a route.
pub const MAX_NETWORKS_PER_LIST: usize = 256;
/// Most agent keys of a route.
pub const MAX_AGENT_KEYS_PER_ROUTE: usize = 64;
/// Most tunnels of a route.
pub const MAX_TUNNELS: u32 = 64;
/// Longest name of a version block.
pub const MAX_BLOCK_NAME_LENGTH: usize = 253;
/// Longest reason or link of a version block.
pub const MAX_BLOCK_TEXT_LENGTH: usize = 2_048;
