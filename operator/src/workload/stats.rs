//! What the workload's part has done, for metrics.

use std::sync::atomic::AtomicU64;

/// Counters, since the process began to lead, and one gauge.
#[derive(Debug, Default)]
pub struct WorkloadStats {
    /// Objects written.
    pub applied: AtomicU64,
    /// Objects that could not be written.
    pub apply_failures: AtomicU64,
    /// Pods that were asked to leave.
    pub evicted: AtomicU64,
    /// Evictions that were refused.
    pub evictions_refused: AtomicU64,
    /// Pods deleted by force.
    pub force_deleted: AtomicU64,
    /// Pods whose nodes are lost now.
    pub lost: AtomicU64,
    /// How often a roll was paused.
    pub pauses: AtomicU64,
}
