//! How fast is fast enough: so many a second, with a reserve for a burst. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of tokens, one for each thing done.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    most: f64,
    there: f64,
    counted: Instant,
}

impl Pace {
    /// Full. At least one a second, with room for one at least: a pace of none would be a stop.
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let most = f64::from(burst.max(1));
        Self { per_second: f64::from(per_second.max(1)), most, there: most, counted: now }
    }

    /// May one more be done now? Then it counts.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let may = self.there >= 1.0;
        if may {
            self.there -= 1.0;
        }
        may
    }

    /// When the next may be done.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.fill(now);
        now + Duration::from_secs_f64((1.0 - self.there).max(0.0) / self.per_second)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        self.there = (self.there + passed.as_secs_f64() * self.per_second).min(self.most);
        self.counted = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_so_many_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(10, 5, start);
        let taken = (0..100).filter(|_| pace.take(start)).count();
        assert_eq!(taken, 5);
        assert_eq!(pace.next(start), start + Duration::from_millis(100));
        // Ten seconds in steps of a millisecond: what was there, and ten a second.
        let taken = (0..=10_000).filter(|step| pace.take(start + Duration::from_millis(*step))).count();
        assert!((99..=101).contains(&taken), "{taken}");
        // An hour of rest is worth no more than the reserve.
        let later = start + Duration::from_hours(1);
        assert_eq!((0..100).filter(|_| pace.take(later)).count(), 5);
        assert!(Pace::new(0, 0, start).take(start));
    }
}
