//! What can be wrong with a table, said so that a person can mend it.

use std::fmt;

use crate::agent_key::Fingerprint;
use crate::host_name::HostName;
use crate::route::InstanceId;
use crate::{MAX_FILE_BYTES, MAX_ROUTES};

/// Where in a file. Counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which line.
    pub line: u64,
    /// Which character of it.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {} column {}", self.line, self.column)
    }
}

/// Puts `line 3 column 5: ` in front where a position is known.
fn at(position: Option<&Position>) -> String {
    position.map(|position| format!("{position}: ")).unwrap_or_default()
}

/// Why there is no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Too much text.
    #[error("the routes file has {bytes} bytes; the most is {MAX_FILE_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Too many routes.
    #[error("there are more than {MAX_ROUTES} routes")]
    TooManyRoutes,
    /// No table at all, or a member of the wrong type.
    #[error("{}{field}: {problem}", at(position.as_ref()))]
    Malformed {
        /// Where.
        position: Option<Position>,
        /// Which member, e.g. `routes[3].limits.maxConnections`, or the file.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// A route whose values make no sense.
    #[error("{}{source}", at(position.as_ref()))]
    Route {
        /// Where the route ends.
        position: Option<Position>,
        /// What is wrong with it.
        source: RouteError,
    },
    /// Two routes of one id.
    #[error("route {id} is listed twice; ids are unique, remove or rename one")]
    DuplicateId {
        /// The id.
        id: InstanceId,
    },
    /// A host name that leads to two instances.
    #[error(
        "host name {hostname} is claimed by route {first} and by route {second}; take it from one of them"
    )]
    DuplicateHostName {
        /// The name.
        hostname: HostName,
        /// Who has it.
        first: InstanceId,
        /// Who claims it too.
        second: InstanceId,
    },
    /// An agent key that stands for two instances.
    #[error(
        "agent key {fingerprint} is listed by route {first} and by route {second}; every agent has its own key and \
         one entry"
    )]
    DuplicateAgentKey {
        /// The key.
        fingerprint: Fingerprint,
        /// Who has it.
        first: InstanceId,
        /// Who claims it too.
        second: InstanceId,
    },
    /// The session API's own name.
    #[error("route {id}: host name {hostname} is where agents get their sessions; choose another")]
    ReservedHostName {
        /// Who claims it.
        id: InstanceId,
        /// The name.
        hostname: HostName,
    },
}

/// What is wrong with one route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route {id}: {field}: {problem}")]
pub struct RouteError {
    /// Its id as written.
    pub id: String,
    /// Which member, e.g. `denyNetworks[0]`.
    pub field: String,
    /// What is wrong and what to do.
    pub problem: String,
}
