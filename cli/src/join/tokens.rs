//! Join tokens that were handed out: their hashes, for whom, until when, and which key has used each.
//!
//! `latchkey join` writes the file and `latchkey up` reads it, at the same time: whoever changes it holds a lock, and
//! it is replaced whole.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use latchkey_agent::state_folder::{StateError, StateFolder};
use rand::TryRng as _;
use route_table::{Fingerprint, InstanceId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const FILE: &str = "join-tokens.json";
const LOCK: &str = "join-tokens.lock";
/// More than anybody hands out before the first of them expires.
const MOST: usize = 10_000;
/// What every token begins with, so that one that leaked is recognised.
const PREFIX: &str = "lkjoin_";

/// The tokens cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another process cannot be kept out.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file was written by somebody else.
    #[error("{} is not what latchkey wrote ({problem}): remove it, and hand out new bundles", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There are too many.
    #[error("{MOST} join tokens wait to be used already: let some of them expire")]
    TooMany,
    /// The system gives no random bytes.
    #[error("no token can be made: the system gives no random bytes ({0})")]
    Random(String),
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody handed it out, or it was forgotten after it had expired.
    #[error("this join token is unknown here or has expired: ask for a new bundle (latchkey join)")]
    Unknown,
    /// Another key came with it before.
    #[error("this join token was used before, by another agent: ask for a new bundle (latchkey join)")]
    Used,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    tokens: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    /// SHA-256 of the token, hex. A token has 256 random bits, so that needs no salt.
    hash: String,
    instance: String,
    /// Unix seconds.
    expires: i64,
    /// The key that used it, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_by: Option<String>,
}

/// The tokens kept in a state folder.
#[derive(Debug, Clone)]
pub struct JoinTokens {
    folder: StateFolder,
}

/// A lock that is held until it is dropped.
struct Held(#[expect(dead_code, reason = "the lock goes with the file")] File);

impl JoinTokens {
    /// Those in the folder, which is made when there is none.
    pub fn open(state: &Path) -> Result<Self, TokensError> {
        Ok(Self { folder: StateFolder::open(state)? })
    }

    /// Makes a token that opens the way to an instance once, until `expires`.
    pub fn make(
        &self,
        instance: &InstanceId,
        expires: i64,
        now: i64,
    ) -> Result<Zeroizing<String>, TokensError> {
        let mut raw = Zeroizing::new([0_u8; 32]);
        rand::rngs::SysRng
            .try_fill_bytes(&mut *raw)
            .map_err(|error| TokensError::Random(error.to_string()))?;
        let token = Zeroizing::new(format!("{PREFIX}{}", &*Zeroizing::new(hex(&*raw))));
        let _held = self.lock()?;
        let mut kept = self.read(now)?;
        if kept.tokens.len() >= MOST {
            return Err(TokensError::TooMany);
        }
        kept.tokens.push(Entry {
            hash: hash(&token),
            instance: instance.to_string(),
            expires,
            used_by: None,
        });
        self.write(&kept)?;
        Ok(token)
    }

    /// Which instance a token is for, if `key` may use it now.
    pub fn look(
        &self,
        token: &str,
        key: &Fingerprint,
        now: i64,
    ) -> Result<Result<String, Refused>, TokensError> {
        let hash = hash(token);
        let kept = self.read(now)?;
        Ok(kept.tokens.iter().find(|entry| entry.hash == hash).map_or(Err(Refused::Unknown), |entry| {
            match &entry.used_by {
                Some(used_by) if *used_by != key.to_string() => Err(Refused::Used),
                // An agent that did not hear the answer asks again, with the same key.
                _ => Ok(entry.instance.clone()),
            }
        }))
    }

    /// Uses a token up for this key; the instance it is for.
    pub fn redeem(
        &self,
        token: &str,
        key: &Fingerprint,
        now: i64,
    ) -> Result<Result<String, Refused>, TokensError> {
        let _held = self.lock()?;
        let instance = match self.look(token, key, now)? {
            Ok(instance) => instance,
            refused => return Ok(refused),
        };
        let hash = hash(token);
        let mut kept = self.read(now)?;
        for entry in kept.tokens.iter_mut().filter(|entry| entry.hash == hash) {
            entry.used_by = Some(key.to_string());
        }
        self.write(&kept)?;
        Ok(Ok(instance))
    }

    fn lock(&self) -> Result<Held, TokensError> {
        let path = self.folder.path_of(LOCK);
        let lock = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map(Held).map_err(|source| TokensError::Lock { path: path.clone(), source })
    }

    /// Those that have not expired.
    fn read(&self, now: i64) -> Result<Kept, TokensError> {
        let Some(text) = self.folder.read(FILE)? else { return Ok(Kept::default()) };
        let mut kept: Kept = serde_json::from_str(&text).map_err(|error| TokensError::Unreadable {
            path: self.folder.path_of(FILE),
            problem: format!("line {} column {}", error.line(), error.column()),
        })?;
        kept.tokens.retain(|entry| entry.expires > now);
        Ok(kept)
    }

    fn write(&self, kept: &Kept) -> Result<(), TokensError> {
        let text = serde_json::to_string_pretty(kept).map_err(|error| TokensError::Unreadable {
            path: self.folder.path_of(FILE),
            problem: error.to_string(),
        })?;
        Ok(self.folder.write(FILE, &text)?)
    }
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    latchkey_agent::identity::hex(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Fingerprint {
        Fingerprint::from_bytes([byte; 32])
    }

    #[test]
    fn a_token_opens_one_way_once_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = JoinTokens::open(dir.path()).unwrap();
        let lake: InstanceId = "homes/lake".parse().unwrap();
        let token = tokens.make(&lake, 1000, 0).unwrap();
        let other = tokens.make(&lake, 1000, 0).unwrap();
        assert_ne!(token, other);
        assert_eq!(
            tokens.look(&token, &key(1), 1).unwrap(),
            Ok("homes/lake".to_owned()),
            "looking uses nothing up"
        );
        assert_eq!(tokens.redeem(&token, &key(2), 1).unwrap(), Ok("homes/lake".to_owned()));
        assert_eq!(tokens.redeem(&token, &key(2), 2).unwrap(), Ok("homes/lake".to_owned()), "asked again");
        assert_eq!(tokens.redeem(&token, &key(1), 2).unwrap(), Err(Refused::Used));
        assert_eq!(tokens.redeem(&other, &key(3), 1000).unwrap(), Err(Refused::Unknown), "expired");
        assert_eq!(tokens.redeem("lkjoin_00", &key(3), 1).unwrap(), Err(Refused::Unknown));
    }

    #[test]
    fn only_hashes_are_kept_and_nobody_else_reads_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let tokens = JoinTokens::open(dir.path()).unwrap();
        let token = tokens.make(&"homes/lake".parse().unwrap(), 1000, 0).unwrap();
        let path = dir.path().join(FILE);
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(!kept.contains(token.trim_start_matches(PREFIX)), "{kept}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "{").unwrap();
        assert!(
            tokens
                .make(&"homes/lake".parse().unwrap(), 1000, 0)
                .unwrap_err()
                .to_string()
                .contains("remove it")
        );
    }
}
