//! Open files: a tunnel is one.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// For everything that is no tunnel.
const OTHERS: u64 = 32;

/// Why there cannot be so many tunnels.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescriptorError {
    #[error("{wanted} tunnels need as many open files; the hard limit is {limit} (ulimit -Hn)")]
    TooFew { wanted: u64, limit: u64 },
    #[error("cannot raise the limit of open files")]
    Io(#[from] io::Error),
}

/// Asks the system for as many files as this process may have, which have to be enough for so many tunnels.
pub(crate) fn raise_limit(tunnels: usize) -> Result<(), DescriptorError> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(io::Error::from)?;
    let wanted = tunnels as u64 + OTHERS;
    match limit.maximum {
        Some(limit) if limit < wanted => Err(DescriptorError::TooFew { wanted, limit }),
        _ => Ok(()),
    }
}
