//! When an address is called again. Without a clock or randomness of its own.

use std::time::Duration;

/// The first wait, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A call that lasted this long was a good one.
pub(super) const GOOD: Duration = Duration::from_secs(10);

/// Counts failures of one address.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A call ended after so long: how long to wait for the next. Half of it is chance (`random`, 0 to 1), so that
    /// proxies that lost the same operator do not come back in step.
    pub(super) fn after(&mut self, lasted: Duration, random: f64) -> Duration {
        if lasted >= GOOD {
            self.failures = 0;
        }
        let wait = WAITS.0.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(WAITS.1);
        self.failures = self.failures.saturating_add(1).min(u32::BITS);
        wait.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_cap_and_a_good_call_begins_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..7).map(|_| backoff.after(Duration::ZERO, 1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000]);
        for _ in 0..100 {
            assert_eq!(backoff.after(Duration::ZERO, 0.0).as_millis(), 2500);
        }
        assert_eq!(backoff.after(Duration::from_mins(1), 0.0).as_millis(), 100);
    }
}
