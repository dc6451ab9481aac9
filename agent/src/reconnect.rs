//! When to try again: a state machine without a clock, sockets or randomness of its own.
//!
//! The caller says what happened, what time it is and gives one random number; the answer is when the next
//! attempt is due. `J(x)` below is full jitter: anything from nothing to x. `H(x)` keeps half: x/2 to x.
//!
//! | what happened            | while                          | next attempt                                    |
//! |--------------------------|--------------------------------|-------------------------------------------------|
//! | start                    |                                | now                                             |
//! | `Connected`              |                                | none                                            |
//! | `Lost`                   | it had held for 10 s           | now; the backoff starts anew                    |
//! | `Lost`                   | it had not (a flapping server) | as for `ConnectFailed`                          |
//! | `Lost`                   | the next attempt is planned    | as planned                                      |
//! | `ConnectFailed`          | first minute of trouble        | J(0.5 s, 1 s, 2 s, 4 s, 8 s, 8 s, ...)          |
//! | `ConnectFailed`          | later                          | J(... 16 s, 32 s, 60 s, 60 s, ...)              |
//! | `Refused(UnknownKey)`    |                                | H(10 s, 20 s, ... 5 min)                        |
//! | `Refused(Disabled)`      | the server named no time       | H(15 min, 30 min, 1 h, 1 h, ...)                |
//! | `Refused(Blocked)`       | the server named no time       | H(5 min)                                        |
//! | `Refused(TooMany)`       | the server named no time       | H(1 min)                                        |
//! | any of these three       | the server named one           | that (5 s to an hour) + J(1 s or a tenth)       |
//! | `Conflict`               |                                | 1 min + J(15 s)                                 |
//! | `GoAway`                 | connected for 10 s             | now, beside the tunnel that drains              |
//! | `GoAway`                 | connected just now             | as for `ConnectFailed`                          |
//! | `GoAway`                 | the next attempt is planned    | as planned                                      |
//! | `VersionChanged`         | connected, or blocked          | now                                             |
//! | `VersionChanged`         | waiting for anything else      | as planned                                      |
//!
//! The first minute's cap of 8 s is what brings a whole fleet back within 10 s of a short outage; full jitter
//! is what keeps it from arriving all at once.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(500);
const CAP_AT_FIRST: Duration = Duration::from_secs(8);
const CAP_LATER: Duration = Duration::from_mins(1);
const FIRST_MINUTE: Duration = Duration::from_mins(1);
/// A tunnel that held this long was a good one.
const STABLE: Duration = Duration::from_secs(10);
const UNKNOWN_KEY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(5));
const DISABLED: (Duration, Duration) = (Duration::from_mins(15), Duration::from_hours(1));
const BLOCKED: Duration = Duration::from_mins(5);
const TOO_MANY: Duration = Duration::from_mins(1);
/// A server that names a time is believed within these.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(5), Duration::from_hours(1));
const CONFLICT: Duration = Duration::from_mins(1);
const CONFLICT_JITTER: Duration = Duration::from_secs(15);

/// Why the session API said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 401: nobody has registered our key (yet).
    UnknownKey,
    /// 403: the instance is switched off, or refused for a reason a person must change.
    Disabled,
    /// 409: the version we run is blocked.
    Blocked,
    /// 429: asked too often.
    TooMany,
}

/// What happened to the tunnel in use, or to the attempt at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An attempt succeeded.
    Connected,
    /// The tunnel in use ended.
    Lost,
    /// No session or no tunnel, for a reason that may pass by itself.
    ConnectFailed,
    /// The session API refused us.
    Refused {
        /// Why.
        refusal: Refusal,
        /// When to ask again, if it said so.
        retry_after: Option<Duration>,
    },
    /// Another agent holds the instance's tunnel.
    Conflict,
    /// The server will close the tunnel in use soon.
    GoAway,
    /// The instance reports another version than before.
    VersionChanged,
}

/// When the next attempt is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// At once.
    Now,
    /// After this long, whatever was planned before.
    In(Duration),
    /// What was planned (or not planned) stays.
    Stay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Attempting,
    Connected { since: Duration },
    Waiting(Why),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Failed,
    UnknownKey,
    Disabled,
    Blocked,
    TooMany,
    Conflict,
}

/// The state machine. See the table at the head of the file.
#[derive(Debug, Clone)]
pub struct Reconnect {
    state: State,
    trouble_since: Duration,
    failures: u32,
    refusals: u32,
    last_refusal: Option<Why>,
}

impl Reconnect {
    /// Starts with an attempt under way at `now`.
    pub fn new(now: Duration) -> Self {
        Self { state: State::Attempting, trouble_since: now, failures: 0, refusals: 0, last_refusal: None }
    }

    /// To be called when a planned attempt begins.
    pub fn attempt(&mut self) {
        self.state = State::Attempting;
    }

    /// What to do after `outcome`; `now` is any clock that only goes forward, `random` lies in `0.0..1.0`.
    pub fn after(&mut self, outcome: Outcome, now: Duration, random: f64) -> Action {
        let random = random.clamp(0.0, 1.0);
        match (outcome, self.state) {
            (Outcome::Connected, _) => {
                self.state = State::Connected { since: now };
                self.last_refusal = None;
                Action::Stay
            }
            (Outcome::Lost | Outcome::GoAway, State::Connected { since }) => {
                if now.saturating_sub(since) < STABLE {
                    return self.failed(now, random);
                }
                self.recovered(now);
                self.now()
            }
            (Outcome::VersionChanged, State::Connected { .. } | State::Waiting(Why::Blocked)) => self.now(),
            (Outcome::Lost | Outcome::GoAway | Outcome::VersionChanged, _) => Action::Stay,
            (Outcome::ConnectFailed, _) => self.failed(now, random),
            (Outcome::Refused { refusal, retry_after }, _) => self.refused(refusal, retry_after, random),
            (Outcome::Conflict, _) => self.wait(Why::Conflict, CONFLICT + CONFLICT_JITTER.mul_f64(random)),
        }
    }

    fn now(&mut self) -> Action {
        self.state = State::Attempting;
        Action::Now
    }

    fn wait(&mut self, why: Why, time: Duration) -> Action {
        self.state = State::Waiting(why);
        Action::In(time)
    }

    fn recovered(&mut self, now: Duration) {
        self.trouble_since = now;
        self.failures = 0;
    }

    fn failed(&mut self, now: Duration, random: f64) -> Action {
        if self.failures == 0 {
            self.trouble_since = now;
        }
        let early = now.saturating_sub(self.trouble_since) < FIRST_MINUTE;
        let most = doubled(BASE, self.failures, if early { CAP_AT_FIRST } else { CAP_LATER });
        self.failures = self.failures.saturating_add(1);
        self.wait(Why::Failed, most.mul_f64(random))
    }

    fn refused(&mut self, refusal: Refusal, retry_after: Option<Duration>, random: f64) -> Action {
        let why = match refusal {
            Refusal::UnknownKey => Why::UnknownKey,
            Refusal::Disabled => Why::Disabled,
            Refusal::Blocked => Why::Blocked,
            Refusal::TooMany => Why::TooMany,
        };
        // A refusal is an answer: the server is there, and the next failure starts a new backoff.
        self.failures = 0;
        self.refusals = if self.last_refusal == Some(why) { self.refusals.saturating_add(1) } else { 0 };
        self.last_refusal = Some(why);
        let time = match (refusal, retry_after) {
            (Refusal::UnknownKey, _) => half(doubled(UNKNOWN_KEY.0, self.refusals, UNKNOWN_KEY.1), random),
            (_, Some(told)) => {
                let told = told.clamp(RETRY_AFTER.0, RETRY_AFTER.1);
                told + (told / 10).max(Duration::from_secs(1)).mul_f64(random)
            }
            (Refusal::Disabled, None) => half(doubled(DISABLED.0, self.refusals, DISABLED.1), random),
            (Refusal::Blocked, None) => half(BLOCKED, random),
            (Refusal::TooMany, None) => half(TOO_MANY, random),
        };
        self.wait(why, time)
    }
}

/// `base`, doubled `times` times, `cap` at most.
fn doubled(base: Duration, times: u32, cap: Duration) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(times)).min(cap)
}

fn half(time: Duration, random: f64) -> Duration {
    time / 2 + (time / 2).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn connected(at: u64) -> Reconnect {
        let mut it = Reconnect::new(s(0));
        assert_eq!(it.after(Outcome::Connected, s(at), 0.5), Action::Stay);
        it
    }

    /// A refusal without a time.
    fn no(refusal: Refusal) -> Outcome {
        Outcome::Refused { refusal, retry_after: None }
    }

    fn refused(refusal: Refusal) -> Reconnect {
        let mut it = Reconnect::new(s(0));
        it.after(no(refusal), s(1), 0.5);
        it
    }

    /// The answers to the same outcome, again and again at `now`, with the random number at its end of the range.
    fn again_and_again(outcome: Outcome, now: Duration, random: f64, times: usize) -> Vec<Action> {
        let mut it = Reconnect::new(s(0));
        (0..times).map(|_| it.after(outcome, now, random)).collect()
    }

    fn waits(seconds: &[f64]) -> Vec<Action> {
        seconds.iter().map(|x| Action::In(Duration::from_secs_f64(*x))).collect()
    }

    #[test]
    fn lost_after_it_had_held_is_tried_at_once() {
        assert_eq!(connected(1).after(Outcome::Lost, s(11), 0.9), Action::Now);
    }

    #[test]
    fn lost_before_it_had_held_backs_off() {
        let mut it = connected(1);
        assert_eq!(it.after(Outcome::Lost, s(10), 1.0), Action::In(BASE));
        it.attempt();
        it.after(Outcome::Connected, s(11), 1.0);
        assert_eq!(
            it.after(Outcome::Lost, s(12), 1.0),
            Action::In(BASE * 2),
            "connecting alone proves nothing"
        );
    }

    #[test]
    fn lost_while_waiting_changes_nothing() {
        let mut it = refused(Refusal::Blocked);
        assert_eq!(it.after(Outcome::Lost, s(2), 0.0), Action::Stay);
    }

    #[test]
    fn failures_of_the_first_minute_double_up_to_eight_seconds() {
        let got = again_and_again(Outcome::ConnectFailed, s(5), 1.0, 7);
        assert_eq!(got, waits(&[0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]));
        assert_eq!(again_and_again(Outcome::ConnectFailed, s(5), 0.0, 2), waits(&[0.0, 0.0]), "full jitter");
    }

    #[test]
    fn later_failures_double_up_to_a_minute() {
        let mut it = Reconnect::new(s(0));
        for _ in 0..5 {
            it.after(Outcome::ConnectFailed, s(1), 1.0);
        }
        let got: Vec<_> = (0..4).map(|_| it.after(Outcome::ConnectFailed, s(61), 1.0)).collect();
        assert_eq!(got, waits(&[16.0, 32.0, 60.0, 60.0]));
    }

    #[test]
    fn an_unknown_key_asks_again_ever_more_rarely() {
        let got = again_and_again(no(Refusal::UnknownKey), s(1), 1.0, 7);
        assert_eq!(got, waits(&[10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]));
    }

    #[test]
    fn a_disabled_instance_asks_up_to_hourly() {
        let outcome = no(Refusal::Disabled);
        assert_eq!(again_and_again(outcome, s(1), 1.0, 4), waits(&[900.0, 1800.0, 3600.0, 3600.0]));
        assert_eq!(again_and_again(outcome, s(1), 0.0, 2), waits(&[450.0, 900.0]));
    }

    #[test]
    fn a_blocked_version_asks_every_few_minutes() {
        let outcome = no(Refusal::Blocked);
        assert_eq!(again_and_again(outcome, s(1), 1.0, 3), waits(&[300.0, 300.0, 300.0]));
        assert_eq!(again_and_again(outcome, s(1), 0.0, 1), waits(&[150.0]));
    }

    #[test]
    fn retry_after_is_honoured() {
        for refusal in [Refusal::TooMany, Refusal::Disabled, Refusal::Blocked] {
            let told = |time| Outcome::Refused { refusal, retry_after: Some(time) };
            assert_eq!(again_and_again(told(s(30)), s(1), 0.0, 2), waits(&[30.0, 30.0]));
            assert_eq!(again_and_again(told(s(30)), s(1), 1.0, 1), waits(&[33.0]));
            assert_eq!(again_and_again(told(s(86_400)), s(1), 0.0, 1), waits(&[3600.0]), "an hour at most");
            assert_eq!(again_and_again(told(s(0)), s(1), 0.0, 1), waits(&[5.0]), "not all the time");
        }
    }

    #[test]
    fn too_many_without_a_time_waits_a_minute() {
        let outcome = no(Refusal::TooMany);
        assert_eq!(again_and_again(outcome, s(1), 1.0, 1), waits(&[60.0]));
    }

    #[test]
    fn a_conflict_waits_a_minute() {
        assert_eq!(connected(1).after(Outcome::Conflict, s(2), 0.0), Action::In(s(60)));
        assert_eq!(connected(1).after(Outcome::Conflict, s(2), 1.0), Action::In(s(75)));
    }

    #[test]
    fn go_away_opens_the_second_tunnel_at_once() {
        assert_eq!(connected(1).after(Outcome::GoAway, s(11), 0.9), Action::Now);
    }

    #[test]
    fn go_away_right_after_connecting_does_not_spin() {
        assert_eq!(connected(1).after(Outcome::GoAway, s(2), 1.0), Action::In(BASE));
    }

    #[test]
    fn go_away_while_an_attempt_is_planned_changes_nothing() {
        assert_eq!(refused(Refusal::Disabled).after(Outcome::GoAway, s(2), 1.0), Action::Stay);
    }

    #[test]
    fn another_version_is_reported_at_once_when_blocked_or_connected() {
        assert_eq!(connected(1).after(Outcome::VersionChanged, s(2), 1.0), Action::Now);
        assert_eq!(refused(Refusal::Blocked).after(Outcome::VersionChanged, s(2), 1.0), Action::Now);
    }

    #[test]
    fn another_version_lifts_no_other_wait() {
        for refusal in [Refusal::UnknownKey, Refusal::Disabled, Refusal::TooMany] {
            assert_eq!(
                refused(refusal).after(Outcome::VersionChanged, s(2), 1.0),
                Action::Stay,
                "{refusal:?}"
            );
        }
        let mut conflict = connected(1);
        conflict.after(Outcome::Conflict, s(2), 0.0);
        assert_eq!(conflict.after(Outcome::VersionChanged, s(3), 0.0), Action::Stay);
    }

    #[test]
    fn another_kind_of_refusal_starts_its_own_count() {
        let mut it = Reconnect::new(s(0));
        it.after(no(Refusal::UnknownKey), s(1), 1.0);
        it.after(no(Refusal::UnknownKey), s(1), 1.0);
        assert_eq!(it.after(no(Refusal::Disabled), s(1), 1.0), Action::In(s(900)));
        assert_eq!(it.after(no(Refusal::UnknownKey), s(1), 1.0), Action::In(s(10)));
    }

    /// A generator that needs no crate and gives the same numbers every run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
        }
    }

    #[test]
    fn ten_thousand_agents_are_back_within_ten_seconds_and_not_all_at_once() {
        let (lost, back) = (s(100), s(105));
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut arrivals = Vec::new();
        for _ in 0..10_000 {
            let mut it = connected(1);
            let mut at = lost;
            let mut action = it.after(Outcome::Lost, at, random.next());
            loop {
                match action {
                    Action::Now => {}
                    Action::In(time) => at += time,
                    Action::Stay => panic!("nothing planned while the tunnel is down"),
                }
                it.attempt();
                if at >= back {
                    break;
                }
                action = it.after(Outcome::ConnectFailed, at, random.next());
            }
            arrivals.push(at.checked_sub(back).unwrap());
        }
        arrivals.sort();
        assert!(arrivals[9_999] < s(10), "the last came after {:?}", arrivals[9_999]);
        let mut busiest = 0;
        for (index, first) in arrivals.iter().enumerate() {
            let window = arrivals[index..].iter().take_while(|x| **x < *first + Duration::from_millis(100));
            busiest = busiest.max(window.count());
        }
        assert!(busiest < 600, "{busiest} of 10,000 within 100 ms");
    }

    fn outcomes() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Connected),
            Just(Outcome::Lost),
            Just(Outcome::ConnectFailed),
            Just(no(Refusal::UnknownKey)),
            Just(no(Refusal::Disabled)),
            Just(no(Refusal::Blocked)),
            any::<Option<u32>>().prop_map(|t| {
                Outcome::Refused { refusal: Refusal::TooMany, retry_after: t.map(|t| s(u64::from(t))) }
            }),
            Just(Outcome::Conflict),
            Just(Outcome::GoAway),
            Just(Outcome::VersionChanged),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: no wait is longer than the longest of the table, nothing that
        /// leaves us without a tunnel leaves us without a plan, and no more than two attempts follow each
        /// other at once without a connection that held.
        #[test]
        fn there_is_always_a_plan_and_never_a_spin(
            steps in prop::collection::vec((outcomes(), 0_u64..30_000, 0.0..1.0_f64), 1..200),
        ) {
            let mut it = Reconnect::new(s(0));
            let mut now = Duration::ZERO;
            let (mut planned, mut up) = (true, false);
            for (outcome, passed, random) in steps {
                now += Duration::from_millis(passed);
                let action = it.after(outcome, now, random);
                if outcome == Outcome::Connected { planned = false; up = true; }
                match action {
                    Action::In(time) => {
                        prop_assert!(time <= RETRY_AFTER.1 + RETRY_AFTER.1 / 10);
                        planned = true;
                    }
                    Action::Now => {
                        prop_assert!(up || matches!(outcome, Outcome::VersionChanged), "{outcome:?}");
                        planned = true;
                    }
                    Action::Stay => {}
                }
                if matches!(outcome, Outcome::Lost | Outcome::Conflict | Outcome::Refused { .. }) { up = false; }
                prop_assert!(planned || up, "neither a tunnel nor a plan after {outcome:?}");
            }
        }

        /// A burst of failures at any moment never asks for more than the cap that holds then.
        #[test]
        fn caps_hold(failures in 1_usize..100, at in 0_u64..1_000, random in 0.0..1.0_f64) {
            let mut it = Reconnect::new(s(0));
            it.after(Outcome::ConnectFailed, s(0), random);
            for _ in 0..failures {
                let cap = if at < 60 { CAP_AT_FIRST } else { CAP_LATER };
                match it.after(Outcome::ConnectFailed, s(at), random) {
                    Action::In(time) => prop_assert!(time <= cap),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
