//! What a status says, as one number: of 100,000 objects nobody wants to keep a second status to compare the first with.

use std::hash::{DefaultHasher, Hasher};
use std::io;

use resources::{Condition, RemoteInstanceStatus, VersionBlockStatus};
use serde::Serialize;

/// What a status says, the times of its conditions aside: two statuses that say the same have the same digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(u64);

/// A status that can be compared.
pub trait Said {
    /// What it says.
    fn digest(&self) -> Digest;
}

impl Said for RemoteInstanceStatus {
    fn digest(&self) -> Digest {
        // A new member must be looked at here: without `..` the build says so.
        let Self {
            observed_generation,
            url,
            hostnames,
            version,
            blocked_by,
            tunnel,
            certificate,
            conditions,
        } = self;
        let conditions = timeless(conditions);
        digest(&(observed_generation, url, hostnames, version, blocked_by, tunnel, certificate, conditions))
    }
}

impl Said for VersionBlockStatus {
    fn digest(&self) -> Digest {
        let Self { observed_generation, matched, blocked, accepted, conditions } = self;
        digest(&(observed_generation, matched, blocked, accepted, timeless(conditions)))
    }
}

/// Conditions without their times, by kind: the API server keeps a map of them, whose order says nothing.
fn timeless(conditions: &[Condition]) -> Vec<impl Serialize> {
    let mut said: Vec<_> = conditions
        .iter()
        .map(|condition| {
            let Condition { kind, status, reason, message, last_transition_time: _, observed_generation } =
                condition;
            (kind, status, reason, message, observed_generation)
        })
        .collect();
    said.sort_unstable();
    said
}

fn digest(said: &impl Serialize) -> Digest {
    let mut hashing = Hashing(DefaultHasher::new());
    // Neither the hasher nor these types can fail; if they did, the digest would be of what was written so far.
    let _ = serde_json::to_writer(&mut hashing, said);
    Digest(hashing.0.finish())
}

struct Hashing(DefaultHasher);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use resources::Timestamp;
    use resources::condition::Truth;
    use resources::remote_instance::TunnelStatus;

    use super::*;

    fn condition(kind: &'static str, time: i64) -> Condition {
        Condition {
            kind: kind.into(),
            status: Truth::True,
            reason: "Serving".into(),
            message: "Visitors reach it.".into(),
            last_transition_time: Timestamp(time),
            observed_generation: Some(3),
        }
    }

    fn status(conditions: Vec<Condition>) -> RemoteInstanceStatus {
        let tunnel = Some(TunnelStatus { connected: true, since: Some(Timestamp(5)), ..Default::default() });
        let url = Some("https://lake-house.ui.example.com".to_owned());
        RemoteInstanceStatus { url, tunnel, conditions: conditions.into(), ..Default::default() }
    }

    #[test]
    fn times_and_order_of_conditions_say_nothing() {
        let one = status(vec![condition("Ready", 1), condition("Connected", 2)]);
        let other = status(vec![condition("Connected", 7), condition("Ready", 9)]);
        assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn everything_else_says_something() {
        let known = status(vec![condition("Ready", 1)]);
        let mut others = vec![
            status(vec![]),
            status(vec![Condition { status: Truth::False, ..condition("Ready", 1) }]),
            status(vec![Condition { reason: "Blocked".into(), ..condition("Ready", 1) }]),
            status(vec![Condition { message: "No.".into(), ..condition("Ready", 1) }]),
            status(vec![Condition { observed_generation: Some(4), ..condition("Ready", 1) }]),
            RemoteInstanceStatus { url: None, ..known.clone() },
            RemoteInstanceStatus { observed_generation: Some(1), ..known.clone() },
            RemoteInstanceStatus { blocked_by: vec!["core-2021-1-4".to_owned()], ..known.clone() },
        ];
        let since = TunnelStatus { connected: true, since: Some(Timestamp(6)), ..Default::default() };
        others.push(RemoteInstanceStatus { tunnel: Some(since), ..known.clone() });
        for other in others {
            assert_ne!(known.digest(), other.digest(), "{other:?}");
        }
    }

    #[test]
    fn what_comes_back_from_the_api_has_the_digest_of_what_was_sent() {
        let sent = status(vec![condition("Ready", 1)]);
        let back: RemoteInstanceStatus =
            serde_json::from_value(serde_json::to_value(&sent).unwrap()).unwrap();
        assert_eq!(sent.digest(), back.digest());
    }
}
