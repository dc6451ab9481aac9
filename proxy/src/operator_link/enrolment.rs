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
