//! When those may ask again who are refused until a person does something. Pure: the time is an argument.
//!
//! They hear of a change by asking, so it should be soon; but there may be a fleet of them. Each is given the next free
//! turn: of few everyone comes back soon, of many so many a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Nobody is asked to come back sooner.
const SOONEST: Duration = Duration::from_secs(30);
/// ... or later.
const LATEST: Duration = Duration::from_mins(15);
/// Between two turns: a hundred come back in a second.
const APART: Duration = Duration::from_millis(10);

/// The turns of one proxy.
#[derive(Debug, Default)]
pub(super) struct Comeback {
    /// The turn that was given last.
    last: Mutex<Option<Instant>>,
}

impl Comeback {
    /// How long the next one is to wait.
    pub(super) fn next(&self, now: Instant) -> Duration {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let free = last.map_or(now, |last| last + APART);
        let turn = free.clamp(now + SOONEST, now + LATEST);
        *last = Some(turn);
        turn - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_come_back_soon() {
        let (comeback, begin) = (Comeback::default(), Instant::now());
        for minutes in 0..5 {
            let now = begin + Duration::from_mins(minutes);
            assert_eq!(comeback.next(now), SOONEST);
            assert_eq!(comeback.next(now), SOONEST + APART);
        }
    }

    #[test]
    fn many_come_back_one_after_the_other() {
        let (comeback, begin) = (Comeback::default(), Instant::now());
        let mut turns: Vec<Duration> = (0..10_000).map(|_| comeback.next(begin)).collect();
        turns.dedup();
        assert_eq!(turns.len(), 10_000);
        assert_eq!(turns[9_999], SOONEST + APART * 9_999);
        // They come in turn, and so they go on.
        let again = comeback.next(begin + turns[0]);
        assert!(again > Duration::from_secs(95) && again < Duration::from_secs(105), "{again:?}");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (comeback, begin) = (Comeback::default(), Instant::now());
        for _ in 0..200_000 {
            comeback.next(begin);
        }
        assert_eq!(comeback.next(begin), LATEST);
        assert_eq!(comeback.next(begin + LATEST), SOONEST, "nor for those who never came");
    }
}
