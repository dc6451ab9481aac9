//! The files of the proxies' Secret, mounted into every one of them.
//!
//! | file | what |
//! |---|---|
//! | `link.crt`, `link.key` | the certificate that proxies show operators; its names are those of their pods |
//! | `trust.crt` | authorities to trust: the present one, the next one, the one before |
//! | `tls.crt`, `tls.key` | the certificate that the session API shows agents |
//! | `ca.crt`, `next-ca.crt` | what agents are told to trust, and what they will be |

use std::time::Duration;

use planner::Timestamp;
use route_table::HostName;
use zeroize::Zeroizing;

use super::KeysError;
use super::authority::Authority;
use super::certificates::{self, Pair, Purpose};
use super::rotation::{Lives, after, renew_at};
use super::secrets::{Data, value};

/// Replicas whose names are in the certificate: the most that an installation can have.
const MOST_REPLICAS: usize = 64;

/// What the certificates are made for.
pub(crate) struct For<'a> {
    /// The `StatefulSet` of the proxies.
    pub(crate) proxies: &'a str,
    /// `connect.<domain>`. Without it the session API gets no certificate, or keeps the one it has.
    pub(crate) session_host: Option<&'a HostName>,
}

/// What should be in the Secret, of which this is there; and when to look again.
pub(crate) fn wanted(
    there: &Data,
    authority: &Authority,
    whom: &For<'_>,
    lives: &Lives,
    now: Timestamp,
) -> Result<(Data, Timestamp), KeysError> {
    let mut data = Data::new();
    let mut put = |key: &str, text: &str| data.insert(key.to_owned(), value(text));
    put("trust.crt", &authority.trusted());
    let pods: Vec<String> = (0..MOST_REPLICAS).map(|at| format!("{}-{at}", whom.proxies)).collect();
    let leaf = |certificate, key, purpose, names: &[String], life| {
        let known = pair(there, certificate, key);
        leaf(known, authority, purpose, names, life, now)
    };
    let (link, mut again) = leaf("link.crt", "link.key", Purpose::Client, &pods, lives.link)?;
    put("link.crt", &link.certificate);
    put("link.key", &link.key);
    if let Some(host) = whom.session_host {
        let names = [host.to_string()];
        let (session, at) = leaf("tls.crt", "tls.key", Purpose::Server, &names, lives.session)?;
        again = again.min(at);
        put("tls.crt", &session.certificate);
        put("tls.key", &session.key);
        put("ca.crt", &authority.present.certificate);
        if let Some(next) = authority.next() {
            put("next-ca.crt", next);
        }
    } else {
        let kept = ["tls.crt", "tls.key", "ca.crt", "next-ca.crt"];
        data.extend(kept.iter().filter_map(|key| Some(((*key).to_owned(), there.get(*key)?.clone()))));
    }
    Ok((data, again))
}

/// The certificate that is there, or a new one; and when it has to be looked at again.
pub(crate) fn leaf(
    known: Option<Pair>,
    authority: &Authority,
    purpose: Purpose,
    names: &[String],
    life: Duration,
    now: Timestamp,
) -> Result<(Pair, Timestamp), KeysError> {
    if let Some(known) = known
        && let Some(facts) = certificates::read(&known.certificate)
        && facts.is_signed_by(&authority.facts)
        && facts.names == names
        && now < renew_at(facts.until, life)
    {
        return Ok((known, renew_at(facts.until, life)));
    }
    let until = after(now, life);
    let made = certificates::sign(&authority.present, purpose, names, now, until)?;
    Ok((made, renew_at(until, life)))
}

fn pair(there: &Data, certificate: &str, key: &str) -> Option<Pair> {
    let text = |name: &str| String::from_utf8(there.get(name)?.to_vec()).ok();
    Some(Pair { certificate: text(certificate)?, key: Zeroizing::new(text(key)?) })
}

#[cfg(test)]
#[path = "proxy_files_tests.rs"]
mod tests;
