//! The installation's authorities, as their Secret holds them: the present one, the next one from its announcement on, and
//! the certificate of the one before while something that it signed lives.

use planner::Timestamp;

use super::KeysError;
use super::certificates::{self, Facts, Pair};
use super::rotation::{Authorities, Lives, Step, after};
use super::secrets::{Data, Stored, value};

const PRESENT: (&str, &str) = ("ca.crt", "ca.key");
const NEXT: (&str, &str) = ("next-ca.crt", "next-ca.key");
const ANNOUNCED: &str = "next-announced";
const PREVIOUS: &str = "previous-ca.crt";
const PREVIOUS_UNTIL: &str = "previous-until";

/// Who signs, and who else is trusted.
pub(crate) struct Authority {
    pub(crate) present: Pair,
    pub(crate) facts: Facts,
    next: Option<(Pair, Timestamp)>,
    previous: Option<(String, Timestamp)>,
}

impl Authority {
    /// The first one of an installation.
    pub(crate) fn first(lives: &Lives, now: Timestamp) -> Result<Data, KeysError> {
        let present = certificates::make_authority(now, lives.authority)?;
        Ok(data(&present, None, None))
    }

    pub(crate) fn read(stored: &Stored) -> Result<Self, KeysError> {
        let pair = |(certificate, key)| {
            let pair = Pair {
                certificate: stored.needed_text(certificate)?.to_string(),
                key: stored.needed_text(key)?,
            };
            if !pair.is_whole() {
                return Err(stored.wrong(key, "is not the key of the certificate beside it"));
            }
            Ok(pair)
        };
        let time = |key| {
            let time = stored.needed_text(key)?.parse();
            time.map_err(|_| stored.wrong(key, "is no time like 2026-11-21T10:00:00Z"))
        };
        let present = pair(PRESENT)?;
        let facts = certificates::read(&present.certificate);
        let facts = facts.ok_or_else(|| stored.wrong(PRESENT.0, "is no certificate"))?;
        let next =
            stored.data.contains_key(NEXT.0).then(|| Ok::<_, KeysError>((pair(NEXT)?, time(ANNOUNCED)?)));
        let previous = stored.text(PREVIOUS)?;
        let previous = previous.map(|text| Ok::<_, KeysError>((text.to_string(), time(PREVIOUS_UNTIL)?)));
        Ok(Self { present, facts, next: next.transpose()?, previous: previous.transpose()? })
    }

    pub(crate) fn ages(&self) -> Authorities {
        Authorities {
            until: self.facts.until,
            announced: self.next.as_ref().map(|(_, announced)| *announced),
            previous_until: self.previous.as_ref().map(|(_, until)| *until),
        }
    }

    /// What its Secret holds after this step.
    pub(crate) fn after(&self, step: Step, lives: &Lives, now: Timestamp) -> Result<Data, KeysError> {
        let Self { present, facts: _, next, previous } = self;
        Ok(match (step, next) {
            (Step::MakeNext, _) | (Step::UseNext, None) => {
                let next = certificates::make_authority(now, lives.authority)?;
                data(present, Some(&(next, now)), previous.as_ref())
            }
            (Step::UseNext, Some((next, _))) => {
                let until = after(now, lives.session.max(lives.link));
                data(next, None, Some(&(present.certificate.clone(), until)))
            }
            (Step::ForgetPrevious, next) => data(present, next.as_ref(), None),
        })
    }

    /// The certificate of the next one, once it is announced.
    pub(crate) fn next(&self) -> Option<&str> {
        self.next.as_ref().map(|(next, _)| next.certificate.as_str())
    }

    /// Everybody who is trusted, as PEM.
    pub(crate) fn trusted(&self) -> String {
        let previous = self.previous.as_ref().map(|(previous, _)| previous.as_str());
        [Some(self.present.certificate.as_str()), self.next(), previous].into_iter().flatten().collect()
    }
}

fn data(present: &Pair, next: Option<&(Pair, Timestamp)>, previous: Option<&(String, Timestamp)>) -> Data {
    let mut data = Data::new();
    let mut put = |key: &str, text: &str| data.insert(key.to_owned(), value(text));
    put(PRESENT.0, &present.certificate);
    put(PRESENT.1, &present.key);
    if let Some((next, announced)) = next {
        put(NEXT.0, &next.certificate);
        put(NEXT.1, &next.key);
        put(ANNOUNCED, &announced.to_string());
    }
    if let Some((previous, until)) = previous {
        put(PREVIOUS, previous);
        put(PREVIOUS_UNTIL, &until.to_string());
    }
    data
}
