//! When a custom domain is asked about again, and what its answers come to. Pure.
//!
//! | what is known, and the look | asked again after |
//! |---|---|
//! | never shown, and still not | 5 s, 10 s, 20 s .. 5 min; not before what said no may be forgotten, up to a minute |
//! | shown | an hour, each domain at a time of its own within the hour |
//! | was shown, and is denied | 10 min, or when the denial may be forgotten, so that it is not the same one told twice |
//! | was shown, and is denied again after that | as one never shown |
//! | no answer (SERVFAIL, time-out, refused) | 15 s, 30 s .. 5 min; what is known stays |
//!
//! A [`Proof`] changes when that tells somebody something, not with every look: ten thousand domains that are as they
//! were give nobody work.

use std::time::Duration;

use planner::{Proof, ProofAnswer};
use resources::Timestamp;

/// How often is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// After the first look at a domain that is not shown yet. Doubles with every look.
    pub pending: Duration,
    /// The longest of these.
    pub pending_longest: Duration,
    /// The longest that a pending domain waits because the answer that it is missing may be remembered somewhere.
    pub pending_remembered: Duration,
    /// Between looks at a domain that is shown.
    pub proven: Duration,
    /// After the first denial of a domain that was shown; the planner withdraws it no sooner than after ten minutes.
    pub denied: Duration,
    /// The longest of these, where the denial may be remembered for longer.
    pub denied_longest: Duration,
    /// After the first look without an answer. Doubles with every look.
    pub trouble: Duration,
    /// The longest of these.
    pub trouble_longest: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            pending: Duration::from_secs(5),
            pending_longest: Duration::from_mins(5),
            pending_remembered: Duration::from_mins(1),
            proven: Duration::from_hours(1),
            denied: Duration::from_mins(10),
            denied_longest: Duration::from_hours(1),
            trouble: Duration::from_secs(15),
            trouble_longest: Duration::from_mins(5),
        }
    }
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// A definite answer, and how long it may be remembered.
    Answer(ProofAnswer, Duration),
    /// None, and why.
    Trouble(String),
}

/// One domain's history, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    /// As it is told.
    pub(super) proof: Proof,
    /// Denials since it was shown or asked for first.
    denials: u32,
    /// Was it shown, and not denied for long enough since?
    shown: bool,
    /// Looks without an answer since the last answer.
    troubles: u32,
}

impl Course {
    pub(super) const fn new() -> Self {
        let proof = Proof { answer: None, missing_since: None, trouble: None };
        Self { proof, denials: 0, shown: false, troubles: 0 }
    }

    /// Notes a look taken at `now`; how long until the next. `place` is the domain's own, anywhere between 0 and
    /// `u64::MAX`.
    pub(super) fn note(&mut self, look: Look, now: Timestamp, place: u64, timing: &Timing) -> Duration {
        let (answer, remembered) = match look {
            Look::Trouble(trouble) => {
                self.proof.trouble = Some(trouble);
                let pause = doubled(timing.trouble, self.troubles, timing.trouble_longest);
                self.troubles = self.troubles.saturating_add(1);
                return pause;
            }
            Look::Answer(answer, remembered) => (answer, remembered),
        };
        self.proof.trouble = None;
        self.troubles = 0;
        match answer {
            ProofAnswer::Txt | ProofAnswer::Cname => self.note_shown(answer, remembered, now, place, timing),
            ProofAnswer::Missing => self.note_denied(remembered, now, timing),
        }
    }

    fn note_shown(
        &mut self,
        answer: ProofAnswer,
        remembered: Duration,
        now: Timestamp,
        place: u64,
        timing: &Timing,
    ) -> Duration {
        (self.shown, self.denials) = (true, 0);
        self.proof.missing_since = None;
        // When the same was shown last, nobody needs to know.
        if self.proof.answer.is_none_or(|(known, _)| known != answer) {
            self.proof.answer = Some((answer, now));
        }
        let period = timing.proven;
        until_place(now, place, period, remembered.clamp(period / 4, period * 3 / 4))
    }

    fn note_denied(&mut self, remembered: Duration, now: Timestamp, timing: &Timing) -> Duration {
        let since = *self.proof.missing_since.get_or_insert(now);
        let long_enough = i64::try_from(timing.denied.as_secs()).unwrap_or(i64::MAX);
        let counts = |at: Timestamp| at.0.saturating_sub(since.0) >= long_enough;
        // Of many denials two matter: the first, and the first that is ten minutes later.
        let told = self
            .proof
            .answer
            .is_some_and(|(known, at)| known == ProofAnswer::Missing && (counts(at) || !counts(now)));
        if !told {
            self.proof.answer = Some((ProofAnswer::Missing, now));
        }
        if self.shown && !counts(now) {
            return remembered.clamp(timing.denied, timing.denied_longest.max(timing.denied));
        }
        if self.shown {
            (self.shown, self.denials) = (false, 0);
        }
        let pause = doubled(timing.pending, self.denials, timing.pending_longest);
        self.denials = self.denials.saturating_add(1);
        pause.max(remembered.min(timing.pending_remembered))
    }

    /// The answer that is likely: where to look first.
    pub(super) fn likely(&self) -> ProofAnswer {
        self.proof.answer.map_or(ProofAnswer::Txt, |(answer, _)| answer)
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

/// How long until the next time at `place` of its period, at least `earliest` from now.
fn until_place(now: Timestamp, place: u64, period: Duration, earliest: Duration) -> Duration {
    let Ok(period) = u64::try_from(period.as_millis()) else { return earliest };
    let Ok(earliest_millis) = u64::try_from(earliest.as_millis()) else { return earliest };
    if period == 0 {
        return earliest;
    }
    let now = u64::try_from(now.0).unwrap_or_default().saturating_mul(1000);
    let from = now.saturating_add(earliest_millis) % period;
    let pause = (place % period).wrapping_add(period).wrapping_sub(from) % period;
    earliest + Duration::from_millis(pause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProofAnswer::{Cname, Missing, Txt};

    const SHORT: Duration = Duration::from_secs(1);

    fn answer(answer: ProofAnswer) -> Look {
        Look::Answer(answer, SHORT)
    }

    fn trouble() -> Look {
        Look::Trouble("SERVFAIL".to_owned())
    }

    /// Looks one after the other, each when the one before wanted it; the pauses in seconds.
    fn pauses(course: &mut Course, looks: impl IntoIterator<Item = Look>) -> Vec<u64> {
        let mut now = Timestamp(1_000_000);
        let looks = looks.into_iter().map(|look| {
            let pause = course.note(look, now, 0, &Timing::default()).as_secs();
            now = now.plus_seconds(i64::try_from(pause).unwrap());
            pause
        });
        looks.collect()
    }

    #[test]
    fn a_pending_domain_is_asked_about_soon_and_then_more_rarely() {
        let mut course = Course::new();
        let seen = pauses(&mut course, std::iter::repeat_with(|| answer(Missing)).take(9));
        assert_eq!(seen, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_denial_that_is_remembered_is_not_asked_for_again_at_once_but_no_minute_is_lost() {
        let mut course = Course::new();
        let now = Timestamp(1_000_000);
        let mut note = |remembered| {
            let look = Look::Answer(Missing, Duration::from_secs(remembered));
            course.note(look, now, 0, &Timing::default()).as_secs()
        };
        assert_eq!([note(30), note(3600), note(3600), note(0)], [30, 60, 60, 40]);
    }

    #[test]
    fn trouble_changes_only_trouble() {
        let mut course = Course::new();
        course.note(answer(Txt), Timestamp(500), 0, &Timing::default());
        let shown = course.proof.clone();
        assert_eq!(
            pauses(&mut course, std::iter::repeat_with(trouble).take(7)),
            [15, 30, 60, 120, 240, 300, 300]
        );
        assert_eq!(course.proof, Proof { trouble: Some("SERVFAIL".to_owned()), ..shown.clone() });
        course.note(answer(Txt), Timestamp(900_000), 0, &Timing::default());
        assert_eq!(course.proof, shown, "over, and as it was");
        assert_eq!(pauses(&mut course, [trouble()]), [15], "it begins anew");
    }

    #[test]
    fn a_denial_of_what_was_shown_is_asked_about_again_after_ten_minutes() {
        let mut course = Course::new();
        let timing = Timing::default();
        course.note(answer(Cname), Timestamp(1_000), 0, &timing);
        assert_eq!(course.note(answer(Missing), Timestamp(5_000), 0, &timing).as_secs(), 600);
        assert_eq!(course.proof.answer, Some((Missing, Timestamp(5_000))));
        assert_eq!(course.proof.missing_since, Some(Timestamp(5_000)));
        assert_eq!(course.note(answer(Missing), Timestamp(5_600), 0, &timing).as_secs(), 5);
        assert_eq!(course.proof.answer, Some((Missing, Timestamp(5_600))));
        assert_eq!(course.proof.missing_since, Some(Timestamp(5_000)));
        let withdrawn = course.proof.clone();
        assert_eq!(course.note(answer(Missing), Timestamp(5_605), 0, &timing).as_secs(), 10);
        assert_eq!(course.proof, withdrawn, "nothing new");
        course.note(answer(Cname), Timestamp(5_700), 0, &timing);
        assert_eq!(
            course.proof,
            Proof { answer: Some((Cname, Timestamp(5_700))), missing_since: None, trouble: None }
        );
    }

    #[test]
    fn the_second_denial_is_not_the_first_from_somebodys_memory() {
        for (remembered, expected) in [(0, 600), (900, 900), (86_400, 3600)] {
            let mut course = Course::new();
            course.note(answer(Txt), Timestamp(0), 0, &Timing::default());
            let look = Look::Answer(Missing, Duration::from_secs(remembered));
            assert_eq!(course.note(look, Timestamp(10), 0, &Timing::default()).as_secs(), expected);
        }
    }

    #[test]
    fn trouble_between_two_denials_does_not_make_them_one() {
        let mut course = Course::new();
        let timing = Timing::default();
        course.note(answer(Txt), Timestamp(0), 0, &timing);
        course.note(answer(Missing), Timestamp(1_000), 0, &timing);
        course.note(trouble(), Timestamp(1_600), 0, &timing);
        assert_eq!(course.proof.answer, Some((Missing, Timestamp(1_000))), "nobody said it again yet");
        course.note(answer(Missing), Timestamp(1_615), 0, &timing);
        assert_eq!(course.proof.answer, Some((Missing, Timestamp(1_615))));
    }

    #[test]
    fn a_pending_domain_tells_two_of_its_denials() {
        // The planner may know that it was shown to the process before this one.
        let mut course = Course::new();
        let mut told = Vec::new();
        let mut now = Timestamp(0);
        for _ in 0..12 {
            let before = course.proof.clone();
            let pause = course.note(answer(Missing), now, 0, &Timing::default());
            if course.proof != before {
                told.push(now.0);
            }
            now = now.plus_seconds(i64::try_from(pause.as_secs()).unwrap());
        }
        assert_eq!(told, [0, 615]);
    }

    #[test]
    fn a_proof_told_again_is_no_news() {
        let mut course = Course::new();
        let timing = Timing::default();
        course.note(answer(Txt), Timestamp(1_000), 0, &timing);
        let known = course.proof.clone();
        course.note(answer(Txt), Timestamp(9_000), 0, &timing);
        assert_eq!(course.proof, known);
        course.note(answer(Cname), Timestamp(10_000), 0, &timing);
        assert_eq!(course.proof.answer, Some((Cname, Timestamp(10_000))));
    }

    #[test]
    fn ten_thousand_proven_domains_are_spread_over_the_hour() {
        // Everything is asked about at the start, within a minute.
        let mut per_minute = [0_u32; 60];
        for index in 0..10_000_u64 {
            let place = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut course = Course::new();
            let mut now = 1_795_255_200_000 + index * 6;
            for _ in 0..2 {
                let at = Timestamp(i64::try_from(now / 1000).unwrap());
                let pause = course.note(answer(Txt), at, place, &Timing::default());
                assert!(pause >= Duration::from_mins(15) && pause < Duration::from_mins(105), "{pause:?}");
                now += u64::try_from(pause.as_millis()).unwrap();
            }
            per_minute[usize::try_from(now / 60_000 % 60).unwrap()] += 1;
        }
        assert!(per_minute.iter().all(|count| (100..240).contains(count)), "{per_minute:?}");
    }

    #[test]
    fn what_is_shown_is_asked_about_every_hour_at_its_place() {
        let mut course = Course::new();
        let place = 1_234_567;
        let mut now = Timestamp(1_795_255_200);
        for round in 0..5 {
            let pause = course.note(answer(Txt), now, place, &Timing::default()).as_secs();
            if round > 0 {
                assert!((3598..=3600).contains(&pause), "{pause}");
            }
            now = now.plus_seconds(i64::try_from(pause).unwrap() + 1);
        }
    }
}
