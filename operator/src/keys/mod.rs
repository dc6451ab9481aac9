//! The installation's secrets: made once, kept in Secrets, changed in time.
//!
//! | Secret | what | changed |
//! |---|---|---|
//! | seed | names come from it | never |
//! | authority | signs every certificate here | yearly; the next one is announced weeks before it signs |
//! | token keys | seal what agents get | daily; two are live |
//! | proxies' certificates | see `proxy_files` | daily, the session API's weekly |
//!
//! The operator's own certificate for the link lives in memory. Secrets are read, made and changed by name, never
//! listed. Whoever makes one first, wins; a change counts only if the Secret was still as it was read: so two operators
//! that race end with the same. What vanishes while an operator runs is put back as it was. `rotation` decides, purely.

mod authority;
mod certificates;
mod link_tls;
mod proxy_files;
mod rotation;
mod secrets;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use planner::{Seed, Timestamp};
use route_table::HostName;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub use rotation::Lives;

use authority::Authority;
use link_tls::{Identity, LinkTls};
use proxy_files::For;
use rotation::TokenStep;
use secrets::{Data, Secrets, Stored, value};

use crate::names::Names;
use crate::publish::ServerTls;

/// How often a change is tried when somebody else is faster every time.
const TRIES: usize = 8;

/// The present authority's certificate, in its Secret.
const AUTHORITY: &str = "ca.crt";
const SEED: &str = "seed";
const NEWEST: &str = "newest";
const OLDER: &str = "older";
const MADE: &str = "made";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The API server refuses.
    #[error("Secret {name}: {source}")]
    Api {
        /// Which Secret.
        name: String,
        /// What it says.
        source: kube::Error,
    },
    /// The API server says nothing.
    #[error("Secret {name}: the API server does not answer")]
    NoAnswer {
        /// Which Secret.
        name: String,
    },
    /// A Secret is not as it should be. It is left alone: it may be all that is left of a secret.
    #[error(
        "Secret {name}: {key} {reason}; put it right from a backup, or delete the Secret to have a new one made"
    )]
    Content {
        /// Which Secret.
        name: String,
        /// Which of its values.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Others change a Secret all the time.
    #[error(
        "Secret {name} was changed by somebody else, {TRIES} times in a row; is another operator at work?"
    )]
    Contended {
        /// Which Secret.
        name: String,
    },
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}; is the installation's authority in its Secret whole?")]
    Make(#[from] rcgen::Error),
    /// A certificate cannot be used.
    #[error(
        "the operator's certificate cannot be used: {0}; is the installation's authority in its Secret whole?"
    )]
    Unfit(String),
}

/// The installation's secrets.
pub struct Keys {
    secrets: Secrets,
    names: Names,
    lives: Lives,
    link: Arc<LinkTls>,
    held: Mutex<Held>,
    one_at_a_time: tokio::sync::Mutex<()>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keys").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What is known of them.
struct Held {
    seed: Zeroizing<[u8; 32]>,
    token_keys: Vec<Zeroizing<[u8; 32]>>,
    identity: Arc<Identity>,
    next_run: Timestamp,
    /// What every Secret held when it was last seen.
    seen: BTreeMap<String, Data>,
}

impl Keys {
    /// Reads the installation's Secrets, and makes those that are missing.
    pub async fn ensure(
        client: Client,
        names: Names,
        lives: Lives,
        session_host: Option<&HostName>,
        now: Timestamp,
    ) -> Result<Arc<Self>, KeysError> {
        let secrets = Secrets::new(client, &names);
        let turn =
            Turn { secrets: &secrets, names: &names, lives: &lives, before: None, rotates: false, now };
        let held = turn.take(session_host).await?;
        let link = Arc::new(LinkTls::new(&held.identity)?);
        Ok(Arc::new(Self {
            secrets,
            names,
            lives,
            link,
            held: Mutex::new(held),
            one_at_a_time: tokio::sync::Mutex::default(),
            changes: watch::Sender::default(),
        }))
    }

    /// Changes what is due, as only the leader should. Gives the time of the next run.
    pub async fn rotate(
        &self,
        session_host: Option<&HostName>,
        now: Timestamp,
    ) -> Result<Timestamp, KeysError> {
        self.turn(session_host, true, now).await
    }

    /// Looks at what the leader made of it, as others should now and then: an operator that knows a new authority too
    /// late lets nobody in.
    pub async fn look_again(&self, now: Timestamp) -> Result<Timestamp, KeysError> {
        self.turn(None, false, now).await
    }

    async fn turn(
        &self,
        session_host: Option<&HostName>,
        rotates: bool,
        now: Timestamp,
    ) -> Result<Timestamp, KeysError> {
        let _turn = self.one_at_a_time.lock().await;
        let (identity, seen) = {
            let held = self.held();
            (Arc::clone(&held.identity), held.seen.clone())
        };
        let before = Some((&*identity, &seen));
        let turn =
            Turn { secrets: &self.secrets, names: &self.names, lives: &self.lives, before, rotates, now };
        let next = turn.take(session_host).await?;
        if !next.identity.is_same(&identity) {
            self.link.change(&next.identity)?;
        }
        let next_run = next.next_run;
        let changed = {
            let mut held = self.held();
            let changed =
                held.token_keys != next.token_keys || held.seed != next.seed || held.seen != next.seen;
            *held = next;
            changed
        };
        if changed {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(next_run)
    }

    /// The installation's seed.
    pub fn seed(&self) -> Seed {
        Seed::new(*self.held().seed)
    }

    /// What seals and opens tokens: the first seals, all open.
    pub fn token_keys(&self) -> Vec<Zeroizing<[u8; 32]>> {
        self.held().token_keys.clone()
    }

    /// The certificate of the authority that signs now: what agents are to trust, PEM.
    pub fn authority(&self) -> String {
        let held = self.held();
        let certificate = held.seen.get(&self.names.authority()).and_then(|secret| secret.get(AUTHORITY));
        certificate.map(|pem| String::from_utf8_lossy(pem).into_owned()).unwrap_or_default()
    }

    /// TLS for proxies that connect.
    pub fn server_tls(&self) -> Arc<dyn ServerTls> {
        Arc::clone(&self.link) as _
    }

    /// When something is due.
    pub fn next_run(&self) -> Timestamp {
        self.held().next_run
    }

    /// Goes up when a Secret changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look at everything.
struct Turn<'a> {
    secrets: &'a Secrets,
    names: &'a Names,
    lives: &'a Lives,
    before: Option<(&'a Identity, &'a BTreeMap<String, Data>)>,
    rotates: bool,
    now: Timestamp,
}

impl Turn<'_> {
    async fn take(&self, session_host: Option<&HostName>) -> Result<Held, KeysError> {
        let seed = self
            .get(&self.names.seed(), || Ok(Data::from([(SEED.to_owned(), random().to_vec().into())])))
            .await?;
        let (authority, authority_stored, authority_again) = self.authority().await?;
        let (token_keys, tokens_stored, tokens_again) = self.token_keys().await?;
        let (proxies_stored, proxies_again) = self.proxies(&authority, session_host).await?;
        let identity = self.identity(&authority)?;
        let next_run = [authority_again, tokens_again, proxies_again, identity.again].into_iter().min();
        Ok(Held {
            seed: seed.secret_32(SEED)?,
            token_keys,
            identity: Arc::new(identity),
            next_run: next_run.unwrap_or(self.now),
            seen: [
                (self.names.seed(), seed.data),
                (self.names.authority(), authority_stored.data),
                (self.names.token_keys(), tokens_stored.data),
                (self.names.proxy_certificates(), proxies_stored.data),
            ]
            .into(),
        })
    }

    fn identity(&self, authority: &Authority) -> Result<Identity, KeysError> {
        let before = self.before.map(|(identity, _)| identity);
        Identity::next(before, authority, self.names, self.lives, self.now)
    }

    /// A Secret; where it is gone, as it was seen last, else a new one.
    async fn get(&self, name: &str, make: impl Fn() -> Result<Data, KeysError>) -> Result<Stored, KeysError> {
        let seen = self.before.and_then(|(_, seen)| seen.get(name));
        self.secrets.get_or_create(name, || seen.map_or_else(&make, |seen| Ok(seen.clone()))).await
    }

    async fn authority(&self) -> Result<(Authority, Stored, Timestamp), KeysError> {
        let name = self.names.authority();
        for _ in 0..TRIES {
            let stored = self.get(&name, || Authority::first(self.lives, self.now)).await?;
            let authority = Authority::read(&stored)?;
            match rotation::authorities(authority.ages(), self.lives, self.now) {
                Err(again) => return Ok((authority, stored, again)),
                Ok(_) if !self.rotates => return Ok((authority, stored, self.now)),
                Ok(step) => {
                    let data = authority.after(step, self.lives, self.now)?;
                    if self.secrets.replace(&stored, &data).await?.is_some() {
                        tracing::info!(target: "latchkey::keys", secret = name, ?step, "the installation's authority");
                    }
                }
            }
        }
        Err(KeysError::Contended { name })
    }

    async fn token_keys(&self) -> Result<(Vec<Zeroizing<[u8; 32]>>, Stored, Timestamp), KeysError> {
        let name = self.names.token_keys();
        let made = || (MADE.to_owned(), value(&self.now.to_string()));
        let new = || (NEWEST.to_owned(), random().to_vec().into());
        for _ in 0..TRIES {
            let first = || Ok(Data::from([made(), new(), (OLDER.to_owned(), random().to_vec().into())]));
            let stored = self.get(&name, first).await?;
            let (newest, older) = (stored.secret_32(NEWEST)?, stored.secret_32(OLDER)?);
            let wrong = |_| stored.wrong(MADE, "is no time like 2026-11-21T10:00:00Z");
            let time = stored.needed_text(MADE)?.parse().map_err(wrong)?;
            match rotation::token_keys(time, self.lives, self.now) {
                TokenStep::OlderSeals(again) => return Ok((vec![older, newest], stored, again)),
                TokenStep::NewestSeals(again) => return Ok((vec![newest, older], stored, again)),
                TokenStep::Make if !self.rotates => return Ok((vec![newest, older], stored, self.now)),
                TokenStep::Make => {
                    let data = Data::from([made(), new(), (OLDER.to_owned(), newest.to_vec().into())]);
                    if self.secrets.replace(&stored, &data).await?.is_some() {
                        tracing::info!(target: "latchkey::keys", secret = name, "a new token key");
                    }
                }
            }
        }
        Err(KeysError::Contended { name })
    }

    async fn proxies(
        &self,
        authority: &Authority,
        session_host: Option<&HostName>,
    ) -> Result<(Stored, Timestamp), KeysError> {
        let name = self.names.proxy_certificates();
        let whom = For { proxies: &self.names.proxies(), session_host };
        let wanted = |there: &Data| proxy_files::wanted(there, authority, &whom, self.lives, self.now);
        for _ in 0..TRIES {
            let stored = self.get(&name, || Ok(wanted(&Data::new())?.0)).await?;
            let (data, again) = wanted(&stored.data)?;
            if data == stored.data || !self.rotates {
                return Ok((stored, again));
            }
            if self.secrets.replace(&stored, &data).await?.is_some() {
                tracing::info!(target: "latchkey::keys", secret = name, "new certificates for proxies");
            }
        }
        Err(KeysError::Contended { name })
    }
}

/// 32 bytes that nobody can guess.
fn random() -> Zeroizing<[u8; 32]> {
    Zeroizing::new(rand::random())
}
