//! What is kept beside the manifests and stands in no Git: secrets, keys of agents, and what was decided before.
//!
//! | file | what it holds |
//! |---|---|
//! | `seed` | 32 random bytes from which assigned names come; made once, worth a backup |
//! | `enrolled.json` | keys of agents that joined, by instance |
//! | `memory.json` | when objects were first seen, their last good form, the statuses told, labels given up |
//! | `lock` | held by the one process that writes |
//!
//! The folder belongs to one user and nobody else may look into it. Files are replaced whole or not at all. One that
//! makes no sense is an error and is never made anew: a new seed would give every instance another name.

mod enrolled;
mod folder;
mod memory;
mod seed;

pub use enrolled::{Enrolled, MAX_KEYS_PER_INSTANCE, TooManyKeys};
pub use folder::{StateError, StateFolder};
pub(crate) use memory::{Memory, Released, Remembered};
