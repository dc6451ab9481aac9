//! When a custom domain is proven, and when the proof is gone.

use resources::Timestamp;

use crate::inventory::{Proof, ProofAnswer};

/// How long DNS must go on denying before a domain is withdrawn.
const DOUBT_SECONDS: i64 = 600;

/// May an instance serve the domain?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// DNS shows that it is meant.
    Proven,
    /// It was shown once, and DNS denies it too shortly to count.
    Doubted,
    /// It is not shown yet, or DNS has denied it for ten minutes.
    Unproven,
}

impl Standing {
    /// Is the domain served, if nobody else has it?
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Proven | Self::Doubted)
    }
}

/// What answers of DNS make of a domain.
///
/// | latest definite answer | served before | missing for | standing |
/// |---|---|---|---|
/// | TXT, or CNAME to the random name | any | | proven |
/// | none yet | no | | unproven |
/// | none yet | yes | | proven: what was shown once stays, facts may be lost by a restart |
/// | missing | no | any | unproven |
/// | missing | yes | less than ten minutes | doubted: served on |
/// | missing | yes | ten minutes or more | unproven: withdrawn |
///
/// SERVFAIL and time-outs are no answers: they change nothing. Nor does the mere passing of time: a domain is lost by
/// two answers ten minutes apart, not by one that nobody asked again about.
pub(crate) fn standing(proof: Option<&Proof>, served_before: bool) -> Standing {
    let answer = proof.and_then(|proof| proof.answer);
    match (answer, served_before) {
        (Some((ProofAnswer::Txt | ProofAnswer::Cname, _)), _) | (None, true) => Standing::Proven,
        (None | Some((ProofAnswer::Missing, _)), false) => Standing::Unproven,
        (Some((ProofAnswer::Missing, latest)), true) => {
            let Timestamp(since) = proof.and_then(|proof| proof.missing_since).unwrap_or(latest);
            if latest.0.saturating_sub(since) < DOUBT_SECONDS {
                Standing::Doubted
            } else {
                Standing::Unproven
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(answer: Option<(ProofAnswer, i64)>, missing_since: Option<i64>) -> Proof {
        Proof {
            answer: answer.map(|(answer, at)| (answer, Timestamp(at))),
            missing_since: missing_since.map(Timestamp),
            trouble: Some("SERVFAIL".to_owned()),
        }
    }

    #[test]
    fn every_row() {
        use ProofAnswer::{Cname, Missing, Txt};
        use Standing::{Doubted, Proven, Unproven};
        // (answer, served before, missing since, standing)
        for (answer, before, since, expected) in [
            (Some((Txt, 1_000)), false, None, Proven),
            (Some((Cname, 1_000)), false, None, Proven),
            (Some((Txt, 1_000)), true, None, Proven),
            (None, false, None, Unproven),
            (None, true, None, Proven),
            (Some((Missing, 1_000)), false, Some(0), Unproven),
            (Some((Missing, 1_000)), true, Some(1_000), Doubted),
            (Some((Missing, 1_000)), true, Some(401), Doubted),
            (Some((Missing, 1_000)), true, Some(400), Unproven),
            (Some((Missing, 1_000)), true, None, Doubted),
        ] {
            let found = standing(Some(&proof(answer, since)), before);
            assert_eq!(found, expected, "{answer:?} {before} {since:?}");
        }
        assert_eq!(standing(None, true), Proven);
        assert_eq!(standing(None, false), Unproven);
    }
}
