//! `/v1/enrol` as `up` answers it: a join token made by `latchkey join`, for a key that the agent proves.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use latchkey_proxy::{
    routes::{Live, RouteSource as _},
    session_api::{EnrolFuture, EnrolRequest, Enrolled, Enrolment, Problem, ProblemKind},
};
use route_table::{Fingerprint, InstanceId};
use tokio::sync::{mpsc, oneshot};

use crate::join::tokens::JoinTokens;

/// How long an answer waits for the table that knows the key.
const IN_FORCE: Duration = Duration::from_secs(3);

/// A key that is to be registered.
#[derive(Debug)]
pub struct NewKey {
    /// For which instance.
    pub instance: InstanceId,
    /// SHA-256 of the public key.
    pub key: Fingerprint,
    /// Tells whether it was kept.
    pub kept: oneshot::Sender<Result<(), String>>,
}

/// Redeems join tokens.
#[derive(Debug)]
pub struct TokenEnrolment {
    tokens: JoinTokens,
    live: Arc<Live>,
    keys: mpsc::Sender<NewKey>,
}

impl TokenEnrolment {
    /// Tokens out of that state folder; keys go to whoever keeps them, and are in force once a table has them.
    pub fn new(tokens: JoinTokens, live: Arc<Live>, keys: mpsc::Sender<NewKey>) -> Self {
        Self { tokens, live, keys }
    }

    async fn register(&self, request: EnrolRequest) -> Result<Enrolled, Problem> {
        let EnrolRequest { join_token, public_key: key, proved } = request;
        if !proved {
            return Err(Problem::new(
                ProblemKind::NoCertificate,
                "show the key that is to be registered as a TLS client certificate",
            ));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let broken = |error: &dyn std::fmt::Display| {
            tracing::error!(target: "latchkey::session", %error, "an agent cannot be enrolled");
            Problem::new(
                ProblemKind::Internal,
                "the join tokens cannot be used here: see the log of latchkey up",
            )
        };
        let refused = |why: &dyn std::fmt::Display| Problem::new(ProblemKind::Unprocessable, why.to_string());
        let instance = self
            .tokens
            .look(&join_token, &key, now)
            .map_err(|error| broken(&error))?
            .map_err(|why| refused(&why))?;
        let id = self.check(&instance, &key).map_err(|why| refused(&why))?;
        self.tokens
            .redeem(&join_token, &key, now)
            .map_err(|error| broken(&error))?
            .map_err(|why| refused(&why))?;
        let (kept, answer) = oneshot::channel();
        let gone = || Problem::new(ProblemKind::Unavailable, "latchkey up is ending: try again in a moment");
        self.keys.send(NewKey { instance: id, key, kept }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(|error| broken(&error))?;
        self.until_in_force(&key).await;
        tracing::info!(target: "latchkey::session", instance, %key, "agent enrolled");
        Ok(Enrolled { instance })
    }

    /// A token is not used up for what cannot work.
    fn check(&self, instance: &str, key: &Fingerprint) -> Result<InstanceId, String> {
        let table = self.live.current();
        let id = table.by_id(instance).map(|route| route.id.clone()).ok_or_else(|| {
            format!("there is no instance {instance} any more: ask for a bundle for another one")
        })?;
        match table.by_agent_key(key) {
            Some(route) if route.id != id => Err(format!(
                "this agent's key belongs to {} already: give the agent a state folder of its own",
                route.id
            )),
            _ => Ok(id),
        }
    }

    /// The agent asks for its session next: it should not be told that its key is unknown.
    async fn until_in_force(&self, key: &Fingerprint) {
        let mut routes = self.live.subscribe();
        let wait = async {
            while routes.current().by_agent_key(key).is_none() {
                routes.changed().await;
            }
        };
        let _ = tokio::time::timeout(IN_FORCE, wait).await;
    }
}

impl Enrolment for TokenEnrolment {
    fn enrol(&self, request: EnrolRequest) -> EnrolFuture<'_> {
        Box::pin(self.register(request))
    }
}

#[cfg(test)]
mod tests {
    use route_table::{AgentKey, Route, RouteTable};
    use zeroize::Zeroizing;

    use super::*;

    fn table(keys: &[(&str, Fingerprint)]) -> RouteTable {
        let routes = ["homes/lake", "homes/hill"].map(|id| {
            let own = keys.iter().filter(|(of, _)| *of == id);
            let own = own.map(|(_, key)| AgentKey { fingerprint: *key, generation: 1 });
            Route::new(id.parse().unwrap()).with(|terms| terms.agent_keys = own.collect())
        });
        RouteTable::from_routes(1, None, routes).unwrap()
    }

    fn request(token: &str, key: u8, proved: bool) -> EnrolRequest {
        EnrolRequest {
            join_token: Zeroizing::new(token.to_owned()),
            public_key: Fingerprint::from_bytes([key; 32]),
            proved,
        }
    }

    #[tokio::test]
    async fn a_token_registers_one_proved_key_and_waits_for_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = JoinTokens::open(dir.path()).unwrap();
        let other = Fingerprint::from_bytes([9; 32]);
        let live = Live::new(table(&[("homes/hill", other)]));
        let (keys, mut received) = mpsc::channel::<NewKey>(1);
        let enrolment = TokenEnrolment::new(tokens.clone(), live.clone(), keys);
        let publisher = live.clone();
        tokio::spawn(async move {
            while let Some(NewKey { instance, key, kept }) = received.recv().await {
                kept.send(Ok(())).unwrap();
                publisher.publish(table(&[(instance.as_str(), key), ("homes/hill", other)]));
            }
        });
        let token = tokens.make(&"homes/lake".parse().unwrap(), i64::MAX, 0).unwrap();
        let status =
            |answer: Result<Enrolled, Problem>| answer.map_err(|problem| problem.kind.status().as_u16());
        assert_eq!(status(enrolment.enrol(request(&token, 1, false)).await), Err(401), "not proved");
        assert_eq!(status(enrolment.enrol(request("lkjoin_x", 1, true)).await), Err(422), "unknown");
        assert_eq!(status(enrolment.enrol(request(&token, 9, true)).await), Err(422), "somebody else's key");
        assert_eq!(enrolment.enrol(request(&token, 1, true)).await.unwrap().instance, "homes/lake");
        assert!(live.current().by_agent_key(&Fingerprint::from_bytes([1; 32])).is_some());
        assert_eq!(status(enrolment.enrol(request(&token, 2, true)).await), Err(422), "used");
        let gone = tokens.make(&"homes/gone".parse().unwrap(), i64::MAX, 0).unwrap();
        assert_eq!(status(enrolment.enrol(request(&gone, 3, true)).await), Err(422), "no such instance");
    }
}
