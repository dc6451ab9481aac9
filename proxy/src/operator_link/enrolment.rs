//! `/v1/enrol` with an operator: the leader redeems the join token, and the table brings the key back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use operator_link::wire::{self, Enrol, FromProxy, RefusalKind, enrolled::Outcome, from_proxy::Message};
use route_table::Fingerprint;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{leaders::Leaders, table::Table};
use crate::{
    routes::RouteSource as _,
    session_api::{EnrolFuture, EnrolRequest, Enrolled, Enrolment, Problem, ProblemKind},
};

/// How long all of it may take.
const TIME: Duration = Duration::from_secs(10);
/// How many may wait for an answer.
const MAX_WAITING: usize = 256;
/// When to ask again.
const AGAIN: Duration = Duration::from_secs(5);

/// Asks the leader.
#[derive(Debug)]
pub(super) struct LeaderEnrolment {
    leaders: Arc<Leaders>,
    table: Arc<Table>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
    next: AtomicU64,
}

impl LeaderEnrolment {
    pub(super) fn new(leaders: Arc<Leaders>, table: Arc<Table>) -> Self {
        Self { leaders, table, waiting: Mutex::default(), next: AtomicU64::new(1) }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leader answered.
    pub(super) fn answered(&self, wire::Enrolled { number, outcome }: wire::Enrolled) {
        let waits = self.waiting().remove(&number);
        if let (Some(waits), Some(outcome)) = (waits, outcome) {
            // Whoever gave up has gone.
            let _ = waits.send(outcome);
        }
    }

    /// The leader is gone: nobody waits for it any longer.
    pub(super) fn leader_lost(&self) {
        self.waiting().clear();
    }

    async fn register(&self, request: EnrolRequest) -> Result<Enrolled, Problem> {
        let EnrolRequest { join_token, public_key: key, proved } = request;
        if !proved {
            return Err(Problem::new(
                ProblemKind::NoCertificate,
                "show the key that is to be registered as a TLS client certificate",
            ));
        }
        let end = Instant::now() + TIME;
        let up = self.leaders.up().ok_or_else(|| later("the operator cannot be reached"))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.len() >= MAX_WAITING {
                return Err(later("too many agents join at this moment"));
            }
            waiting.insert(number, answer);
        }
        let _given_up = GivenUp { enrolment: self, number };
        let enrol =
            Enrol { number, join_token: join_token.to_string(), public_key_sha256: key.as_bytes().to_vec() };
        let ask = async {
            up.send(FromProxy { message: Some(Message::Enrol(enrol)) }).await.ok()?;
            answered.await.ok()
        };
        let outcome = timeout_at(end, ask).await.ok().flatten();
        match outcome.ok_or_else(|| later("the operator did not answer"))? {
            Outcome::Refusal(refusal) => Err(refused(refusal)),
            Outcome::Instance(instance) => {
                self.until_in_force(&key, end).await?;
                tracing::info!(target: "latchkey::session", instance, %key, "agent enrolled");
                Ok(Enrolled { instance })
            }
        }
    }

    /// The agent asks for its session next: it should not be told that its key is unknown. If the key is not there in
    /// time, the agent asks for a session first when it comes again, and needs its token no more.
    async fn until_in_force(&self, key: &Fingerprint, end: Instant) -> Result<(), Problem> {
        let mut routes = self.table.live().subscribe();
        let wait = async {
            while routes.current().by_agent_key(key).is_none() {
                routes.changed().await;
            }
        };
        timeout_at(end, wait).await.map_err(|_| later("the key is registered, but not in force here yet"))
    }
}

impl Enrolment for LeaderEnrolment {
    fn enrol(&self, request: EnrolRequest) -> EnrolFuture<'_> {
        Box::pin(self.register(request))
    }
}

/// Takes a question back, also when the agent hung up.
struct GivenUp<'a> {
    enrolment: &'a LeaderEnrolment,
    number: u64,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.enrolment.waiting().remove(&self.number);
    }
}

fn later(why: &str) -> Problem {
    Problem {
        retry_after: Some(AGAIN),
        ..Problem::new(ProblemKind::Unavailable, format!("{why}: try again in a moment"))
    }
}

fn refused(refusal: wire::Refusal) -> Problem {
    match refusal.kind() {
        RefusalKind::Token | RefusalKind::Conflict => {
            Problem::new(ProblemKind::Unprocessable, refusal.detail)
        }
        // A kind of a later contract, too: trying again harms nobody.
        RefusalKind::Unavailable | RefusalKind::Unspecified => later(&refusal.detail),
    }
}

#[cfg(test)]
mod tests {
    use route_table::{AgentKey, Route, RouteTable};
    use tokio::sync::{Notify, mpsc};
    use zeroize::Zeroizing;

    use super::*;
    use crate::operator_link::leaders::Line;

    struct Rig {
        enrolment: Arc<LeaderEnrolment>,
        leader: mpsc::Receiver<FromProxy>,
    }

    impl Rig {
        fn new() -> Self {
            let (leaders, table) = (Arc::new(Leaders::new(0)), Arc::new(Table::new(None)));
            let (up, leader) = mpsc::channel(MAX_WAITING);
            leaders.welcome(&Line { id: 1, up, closed: Arc::new(Notify::new()) }, 1).unwrap();
            Self { enrolment: Arc::new(LeaderEnrolment::new(leaders, table)), leader }
        }

        /// Asks; `answer` is what the leader says to it.
        async fn ask(
            &mut self,
            proved: bool,
            answer: impl Fn(u64) -> Option<Outcome>,
        ) -> Result<Enrolled, Problem> {
            let request = EnrolRequest {
                join_token: Zeroizing::new("lkjoin_x".to_owned()),
                public_key: Fingerprint::from_bytes([7; 32]),
                proved,
            };
            let asked = self.enrolment.enrol(request);
            let leader = async {
                let Some(heard) = self.leader.recv().await else { return std::future::pending().await };
                let Some(Message::Enrol(enrol)) = heard.message else { panic!("something else than Enrol") };
                assert_eq!((enrol.join_token.as_str(), enrol.public_key_sha256), ("lkjoin_x", vec![7; 32]));
                if let Some(outcome) = answer(enrol.number) {
                    self.enrolment.answered(wire::Enrolled { number: enrol.number, outcome: Some(outcome) });
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                answer = asked => answer,
                () = leader => unreachable!("it is pending"),
            }
        }

        fn is_idle(&self) -> bool {
            self.enrolment.waiting().is_empty()
        }
    }

    fn status(answer: Result<Enrolled, Problem>) -> Result<String, (u16, bool)> {
        let enrolled =
            answer.map_err(|problem| (problem.kind.status().as_u16(), problem.retry_after.is_some()))?;
        Ok(enrolled.instance)
    }

    fn welcome_in() -> Outcome {
        Outcome::Instance("homes/lake".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_enrolled_once_the_table_has_it() {
        let mut rig = Rig::new();
        assert_eq!(status(rig.ask(false, |_| None).await), Err((401, false)), "not proved");
        assert_eq!(
            status(rig.ask(true, |_| Some(welcome_in())).await),
            Err((503, true)),
            "the table never comes"
        );
        let live = rig.enrolment.table.live().clone();
        let publish = async {
            tokio::time::sleep(TIME / 2).await;
            let key = AgentKey { fingerprint: Fingerprint::from_bytes([7; 32]), generation: 1 };
            let route = Route::new("homes/lake".parse().unwrap()).with(|terms| terms.agent_keys.push(key));
            live.publish(RouteTable::from_routes(1, None, [route]).unwrap());
        };
        let (answer, ()) = tokio::join!(rig.ask(true, |_| Some(welcome_in())), publish);
        assert_eq!(status(answer), Ok("homes/lake".to_owned()));
        assert!(rig.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_leader_refuses_is_refused_and_what_it_cannot_say_is_put_off() {
        let mut rig = Rig::new();
        for (kind, expected) in [
            (RefusalKind::Token, (422, false)),
            (RefusalKind::Conflict, (422, false)),
            (RefusalKind::Unavailable, (503, true)),
            (RefusalKind::Unspecified, (503, true)),
        ] {
            let refusal = wire::Refusal { kind: kind.into(), detail: "because".to_owned() };
            let answer = rig.ask(true, |_| Some(Outcome::Refusal(refusal.clone()))).await;
            assert!(answer.as_ref().is_err_and(|problem| problem.detail.contains("because")), "{answer:?}");
            assert_eq!(status(answer), Err(expected), "{kind:?}");
        }
        let begun = Instant::now();
        assert_eq!(status(rig.ask(true, |_| None).await), Err((503, true)), "it says nothing");
        assert_eq!(begun.elapsed(), TIME);
        let enrolment = rig.enrolment.clone();
        let lost = |_| {
            enrolment.leader_lost();
            None
        };
        let begun = Instant::now();
        assert_eq!(status(rig.ask(true, lost).await), Err((503, true)));
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waits for a leader that is gone");
        rig.enrolment.leaders.leave(1);
        assert_eq!(status(rig.ask(true, |_| None).await), Err((503, true)), "nobody leads");
        assert!(rig.is_idle());
    }
}
