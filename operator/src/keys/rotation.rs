//! When to make what anew. Pure: what is there and the time go in, the next step comes out.

use std::time::Duration;

use planner::Timestamp;

const DAY: Duration = Duration::from_hours(24);

/// How long things live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lives {
    /// Certificates of the link between operator and proxies. Made anew after two thirds of it.
    pub link: Duration,
    /// The session API's certificate. Longer, since agents have to get in while no operator is there. Made anew after
    /// two thirds of it.
    pub session: Duration,
    /// An authority.
    pub authority: Duration,
    /// So long before an authority ends, the next one is made and announced.
    pub announce_before: Duration,
    /// So long an authority is announced at least before it signs, while there is time. Agents learn of it once a day.
    pub announced: Duration,
    /// So long before an authority ends, the next one signs.
    pub switch_before: Duration,
    /// For so long a token key is the newest.
    pub token_key: Duration,
    /// For so long a new token key only opens: every proxy has it before one seals with it.
    pub token_key_settles: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            link: DAY,
            session: 7 * DAY,
            authority: 365 * DAY,
            announce_before: 30 * DAY,
            announced: 7 * DAY,
            switch_before: 14 * DAY,
            token_key: DAY,
            token_key_settles: Duration::from_mins(2),
        }
    }
}

/// What there is of authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Authorities {
    /// When the present one ends.
    pub(crate) until: Timestamp,
    /// Since when the next one is announced, if there is one.
    pub(crate) announced: Option<Timestamp>,
    /// Until when the one before is trusted, if there was one.
    pub(crate) previous_until: Option<Timestamp>,
}

/// What to do about authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the next one, and announce it.
    MakeNext,
    /// The next one signs from now on; the present one is trusted for as long as what it signed lives.
    UseNext,
    /// Trust the one before no more.
    ForgetPrevious,
}

/// What to do now, else when to look again.
pub(crate) fn authorities(there: Authorities, lives: &Lives, now: Timestamp) -> Result<Step, Timestamp> {
    let Authorities { until, announced, previous_until } = there;
    let (step, at) = match announced {
        None => (Step::MakeNext, before(until, lives.announce_before)),
        Some(announced) => {
            let known = after(announced, lives.announced).max(before(until, lives.switch_before));
            // What the present one signs must not outlive it. An authority that ends sooner than agents can learn of
            // the next one is no use to them either way.
            (Step::UseNext, known.min(before(until, lives.session.max(lives.link))))
        }
    };
    match previous_until {
        Some(previous) if now >= previous => Ok(Step::ForgetPrevious),
        _ if now >= at => Ok(step),
        Some(previous) => Err(at.min(previous)),
        None => Err(at),
    }
}

/// When to make a certificate anew that ends then.
pub(crate) fn renew_at(until: Timestamp, life: Duration) -> Timestamp {
    before(until, life / 3)
}

/// What to do about token keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenStep {
    /// Make a new one.
    Make,
    /// The one before seals; look again at this time.
    OlderSeals(Timestamp),
    /// The newest seals; look again at this time.
    NewestSeals(Timestamp),
}

/// What to do about token keys of which the newest was made then.
pub(crate) fn token_keys(made: Timestamp, lives: &Lives, now: Timestamp) -> TokenStep {
    let (settled, old) = (after(made, lives.token_key_settles), after(made, lives.token_key));
    // One from the future was made by a clock that was wrong: it would stay for ever.
    if now >= old || made > after(now, lives.token_key) {
        TokenStep::Make
    } else if now < settled {
        TokenStep::OlderSeals(settled)
    } else {
        TokenStep::NewestSeals(old)
    }
}

pub(crate) fn after(time: Timestamp, by: Duration) -> Timestamp {
    time.plus_seconds(i64::try_from(by.as_secs()).unwrap_or(i64::MAX))
}

pub(crate) fn before(time: Timestamp, by: Duration) -> Timestamp {
    time.plus_seconds(i64::try_from(by.as_secs()).map_or(i64::MIN, |seconds| -seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> Timestamp {
        Timestamp(day * 86_400)
    }

    #[test]
    fn every_row_of_an_authority() {
        use Step::{ForgetPrevious, MakeNext, UseNext};
        // (the present one ends, the next is announced since, the one before until, now) -> what to do, or when
        for (until, announced, previous, now, expected) in [
            (365, None, None, 0, Err(335)),
            (365, None, None, 334, Err(335)),
            (365, None, None, 335, Ok(MakeNext)),
            (365, None, None, 400, Ok(MakeNext)),
            // Announced in time: it signs two weeks before the end.
            (365, Some(335), None, 336, Err(351)),
            (365, Some(335), None, 351, Ok(UseNext)),
            // Announced late, since nobody was there: a week later, as long as that goes.
            (365, Some(348), None, 351, Err(355)),
            (365, Some(348), None, 355, Ok(UseNext)),
            (365, Some(354), None, 357, Err(358)),
            (365, Some(354), None, 358, Ok(UseNext)),
            (365, Some(400), None, 400, Ok(UseNext)),
            // The one before goes when nothing of it lives.
            (716, None, Some(365), 352, Err(365)),
            (716, None, Some(365), 365, Ok(ForgetPrevious)),
            (716, Some(686), Some(700), 699, Err(700)),
        ] {
            let there = Authorities {
                until: day(until),
                announced: announced.map(day),
                previous_until: previous.map(day),
            };
            let step = authorities(there, &Lives::default(), day(now));
            assert_eq!(step, expected.map_err(day), "{there:?} on day {now}");
        }
    }

    #[test]
    fn a_new_token_key_opens_before_it_seals() {
        let lives = Lives::default();
        let made = day(10);
        let at = |seconds| token_keys(made, &lives, made.plus_seconds(seconds));
        assert_eq!(at(0), TokenStep::OlderSeals(made.plus_seconds(120)));
        assert_eq!(at(119), TokenStep::OlderSeals(made.plus_seconds(120)));
        assert_eq!(at(120), TokenStep::NewestSeals(day(11)));
        assert_eq!(at(86_399), TokenStep::NewestSeals(day(11)));
        assert_eq!(at(86_400), TokenStep::Make);
        assert_eq!(
            at(-3_600),
            TokenStep::OlderSeals(made.plus_seconds(120)),
            "a clock that went back a little"
        );
        assert_eq!(at(-86_401), TokenStep::Make, "and one that was far ahead");
    }

    #[test]
    fn certificates_are_renewed_after_two_thirds() {
        assert_eq!(renew_at(day(1), DAY), Timestamp(16 * 3_600));
    }
}
