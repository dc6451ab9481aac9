//! Messages with secrets inside show none of them.

use std::fmt;

use crate::wire::{Enrol, TokenKeys};

impl fmt::Debug for TokenKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenKeys({} keys)", self.keys.len())
    }
}

impl fmt::Debug for Enrol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Enrol").field("number", &self.number).finish_non_exhaustive()
    }
}
