//! What stands in the `Lease`, and what it means. Pure: the time is an argument.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff;
use tokio::time::Instant;

use super::Timing;

/// Longest duration that is believed of somebody else's record: one that says a year would keep everybody out.
const MAX_STATED_DURATION: Duration = Duration::from_mins(1);

/// Who holds it, if anybody does.
pub(super) fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The term that the record is about.
pub(super) fn term(spec: &LeaseSpec) -> i32 {
    spec.lease_transitions.unwrap_or_default()
}

/// Terms of new records count from here: the first second of 2026. An `i32` of seconds lasts until 2094.
const FIRST_SECOND: i64 = 1_767_225_600;

/// The term of whoever leads next: one more than the last, but not less than the seconds since 2026 began. So terms rise
/// even where the Lease was deleted, or came back with an old backup: proxies refuse a term lower than one they have seen.
///
/// `None` where there is no higher number, which only somebody's hand can have written.
pub(super) fn next_term(last: i32, now: jiff::Timestamp) -> Option<i32> {
    let seconds = i32::try_from(now.as_second() - FIRST_SECOND).unwrap_or_default();
    Some(last.checked_add(1)?.max(seconds))
}

/// The record of somebody who begins to lead.
pub(super) fn taken(identity: &str, term: i32, timing: &Timing, now: jiff::Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(whole_seconds(timing.duration)),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(term),
        ..LeaseSpec::default()
    }
}

/// The record of somebody who goes on leading.
pub(super) fn renewed(spec: &LeaseSpec, now: jiff::Timestamp) -> LeaseSpec {
    LeaseSpec { renew_time: Some(MicroTime(now)), ..spec.clone() }
}

/// The record of somebody who stopped: the term stays, for the next to raise.
pub(super) fn released(spec: &LeaseSpec, now: jiff::Timestamp) -> LeaseSpec {
    let renew_time = Some(MicroTime(now));
    LeaseSpec { holder_identity: None, acquire_time: None, renew_time, ..spec.clone() }
}

/// At least one, as the API wants, and rounded up, so that nobody takes over early.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX).max(1)
}

/// How the record stood when it was last read, and since when it has not changed. The times in it are other machines'
/// and mean nothing here.
#[derive(Debug, Default)]
pub(super) struct Standing {
    seen: Option<(LeaseSpec, Instant)>,
}

impl Standing {
    /// A look at the record. `read` is when the answer had come. Returns when it may be taken: at once where nobody
    /// holds it, and else when it has not changed for as long as its holder asked for.
    pub(super) fn look(&mut self, spec: &LeaseSpec, timing: &Timing, read: Instant) -> Instant {
        let since = match &self.seen {
            Some((known, since)) if known == spec => *since,
            _ => {
                self.seen = Some((spec.clone(), read));
                read
            }
        };
        if holder(spec).is_none() {
            return read;
        }
        let stated = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        let stated = Duration::from_secs(stated).min(MAX_STATED_DURATION);
        since + stated.max(timing.duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn terms_rise_whatever_became_of_the_lease() {
        assert_eq!(next_term(0, at(0)), Some(1));
        assert_eq!(next_term(7, at(0)), Some(8));
        // Deleted, made again a second later.
        assert_eq!(next_term(0, at(FIRST_SECOND + 28_000_000)), Some(28_000_000));
        assert_eq!(next_term(0, at(FIRST_SECOND + 28_000_001)), Some(28_000_001));
        // A clock that stands or goes back.
        assert_eq!(next_term(28_000_001, at(FIRST_SECOND)), Some(28_000_002));
        assert_eq!(next_term(i32::MAX, at(0)), None);
    }

    #[test]
    fn a_record_that_changes_is_left_alone() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        let mut spec = taken("a", 3, &TIMING, at(0));
        for second in 0..100 {
            let read = start + Duration::from_secs(second);
            spec = renewed(&spec, at(i64::try_from(second).unwrap()));
            assert_eq!(standing.look(&spec, &TIMING, read), read + TIMING.duration);
        }
        // Its times are of no interest: a holder whose clock stands still renews by other means, or not at all.
        let last = start + Duration::from_secs(99);
        for second in 100..120 {
            let read = start + Duration::from_secs(second);
            assert_eq!(standing.look(&spec, &TIMING, read), last + TIMING.duration);
        }
    }

    #[test]
    fn a_released_one_is_free_at_once_and_keeps_the_term() {
        let spec = released(&taken("a", 3, &TIMING, at(0)), at(1));
        let read = Instant::now();
        assert_eq!(Standing::default().look(&spec, &TIMING, read), read);
        assert_eq!((holder(&spec), term(&spec)), (None, 3));
    }

    #[test]
    fn a_longer_duration_of_its_holder_is_kept_to_but_not_any() {
        let read = Instant::now();
        for (stated, waited) in [(30, 30), (1, 15), (-5, 15), (1_000_000, 60)] {
            let spec = LeaseSpec { lease_duration_seconds: Some(stated), ..taken("a", 3, &TIMING, at(0)) };
            let free = Standing::default().look(&spec, &TIMING, read);
            assert_eq!(free, read + Duration::from_secs(waited), "{stated}");
        }
    }

    #[test]
    fn fractions_of_seconds_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1_500)), 2);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(15)), 15);
    }
}
