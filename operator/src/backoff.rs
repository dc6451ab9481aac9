//! How long to wait before another try: longer each time, and never in step with others.

use std::time::Duration;

/// Waits that double from one to another, each shortened by up to a half by chance.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, next: least }
    }

    /// How long to wait this time.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.most);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// It worked: the next wait is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let (least, most) = (Duration::from_millis(200), Duration::from_secs(1));
        let mut backoff = Backoff::new(least, most);
        for longest in [200, 400, 800, 1_000, 1_000] {
            let (wait, longest) = (backoff.wait(), Duration::from_millis(longest));
            assert!(wait <= longest && wait >= longest / 2, "{wait:?} of {longest:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= least);
    }
}
