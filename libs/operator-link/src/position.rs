//! Which table: by the lease's term first, so that a leader that was deposed is always behind.

use std::fmt;

use crate::wire;

/// Which table: the term of the leader that published it, and its revision in that term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Goes up by one whenever another process begins to lead.
    pub term: u64,
    /// The planner's revision in this term.
    pub revision: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.term, self.revision)
    }
}

impl From<Position> for wire::Position {
    fn from(Position { term, revision }: Position) -> Self {
        Self { term, revision }
    }
}

impl From<wire::Position> for Position {
    fn from(wire::Position { term, revision }: wire::Position) -> Self {
        Self { term, revision }
    }
}
