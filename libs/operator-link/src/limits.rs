//! How much either side takes from the other. Both hold a certificate of the installation, so these guard against
//! mistakes, and against a proxy that was taken over.

/// A part of an update is closed once it is about this large, in bytes.
pub const PART_BYTES: usize = 256 * 1024;
/// The largest message either side takes, in bytes. One route with everything at its limit fits.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Block lists known at once. An operator that would need more sends everything anew.
pub const MAX_BLOCK_LISTS: usize = 4_096;
/// Ids removed by one update.
pub const MAX_REMOVED: usize = route_table::MAX_ROUTES;
/// Instances in one batch of facts.
pub const MAX_FACTS: usize = 1_024;
/// Bytes of a text that an agent said: a version, a name, an issuer.
pub const MAX_TEXT_BYTES: usize = 1_024;
/// Names of one certificate.
pub const MAX_CERTIFICATE_NAMES: usize = 100;
/// Token keys at once.
pub const MAX_TOKEN_KEYS: usize = 8;
