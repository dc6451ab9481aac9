//! Each connection costs a file descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many descriptors as the system allows, and says how many that is; `None`: any number.
///
/// The limit in force at the start is 1024 on many systems, for the sake of old programs, and may be raised by anybody.
pub fn take_all() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}
