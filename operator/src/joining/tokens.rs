//! Join tokens, and what is remembered of them: hashes, never a token. Pure, but for the random bytes.
//!
//! A token is `lkjoin_`, 32 random bytes, a dot and the instance it is for, both in base64url. Since it says whom it is
//! for, hashes that were copied to another instance with the rest of a manifest open nothing there.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::TryRng as _;
use resources::Timestamp;
use route_table::{Fingerprint, InstanceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Annotation of a `RemoteInstance` with the hashes of its tokens. Removing it makes all of them void.
pub const TOKENS_ANNOTATION: &str = "latchkey.dev/join-tokens";
/// Tokens that an instance may have at once, used ones included.
pub const MAX_TOKENS: usize = 16;
/// What every token begins with, so that one that leaked is recognised.
const PREFIX: &str = "lkjoin_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// An annotation longer than this was not written by us. Sixteen tokens need less than half.
const MAX_TEXT: usize = 8 * 1024;

/// The system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no join token can be made: the system gives no random bytes ({0})")]
pub(super) struct NoRandomBytes(String);

/// A new token for an instance.
pub(super) fn make(id: &InstanceId) -> Result<Zeroizing<String>, NoRandomBytes> {
    let mut raw = Zeroizing::new([0_u8; TOKEN_BYTES]);
    rand::rngs::SysRng.try_fill_bytes(&mut *raw).map_err(|error| NoRandomBytes(error.to_string()))?;
    let secret = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*raw));
    Ok(Zeroizing::new(format!("{PREFIX}{}.{}", *secret, BASE64_URL_SAFE_NO_PAD.encode(id.as_str()))))
}

/// Whom a token says it is for.
pub(super) fn instance(token: &str) -> Option<InstanceId> {
    let (_, id) = token.strip_prefix(PREFIX)?.split_once('.')?;
    let id = BASE64_URL_SAFE_NO_PAD.decode(id).ok()?;
    std::str::from_utf8(&id).ok()?.parse().ok()
}

/// SHA-256 of a token. A token has 256 random bits, so that needs no salt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenHash(Fingerprint);

impl TokenHash {
    pub(super) fn of(token: &str) -> Self {
        Self(Fingerprint::from_bytes(Sha256::digest(token.as_bytes()).into()))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// A token that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) hash: TokenHash,
    /// From then on it is void.
    pub(super) expires: Timestamp,
    /// Does it open the way to more than one agent?
    pub(super) reusable: bool,
    /// The one agent's key, if one came.
    pub(super) used_by: Option<Fingerprint>,
}

/// As it stands in the annotation.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    sha256: String,
    expires: Timestamp,
    #[serde(default)]
    reusable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_by: Option<String>,
}

impl Entry {
    fn read(value: &Value) -> Option<Self> {
        let written = Written::deserialize(value).ok()?;
        let used_by = match written.used_by {
            None => None,
            // Used by nobody knows whom: void.
            Some(key) => Some(key.parse().ok()?),
        };
        let hash = TokenHash(written.sha256.parse().ok()?);
        Some(Self { hash, expires: written.expires, reusable: written.reusable, used_by })
    }

    fn written(&self) -> Written {
        Written {
            sha256: self.hash.0.to_string(),
            expires: self.expires,
            reusable: self.reusable,
            used_by: self.used_by.map(|key| key.to_string()),
        }
    }
}

/// The tokens of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tokens(Vec<Entry>);

impl Tokens {
    /// Those in the annotation that are not void yet. What makes no sense in it is no token.
    pub(super) fn read(annotation: Option<&str>, now: Timestamp) -> Self {
        let text = annotation.filter(|text| text.len() <= MAX_TEXT).unwrap_or_default();
        let entries: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
        let live = entries.iter().filter_map(Entry::read).filter(|entry| entry.expires > now);
        Self(live.take(MAX_TOKENS).collect())
    }

    /// The annotation; none where there is no token.
    pub(super) fn write(&self) -> Option<String> {
        let entries: Vec<Written> = self.0.iter().map(Entry::written).collect();
        if entries.is_empty() { None } else { serde_json::to_string(&entries).ok() }
    }

    /// Adds one. Where there is no room, a used one goes, or else the one that would be void first.
    pub(super) fn add(&mut self, entry: Entry) {
        while self.0.len() >= MAX_TOKENS {
            let least =
                self.0.iter().enumerate().min_by_key(|(_, each)| (each.used_by.is_none(), each.expires));
            let Some((index, _)) = least else { break };
            self.0.remove(index);
        }
        self.0.push(entry);
    }

    pub(super) fn find(&self, hash: TokenHash) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.hash == hash)
    }

    /// Notes which key has used a token.
    pub(super) fn note_use(&mut self, hash: TokenHash, key: Fingerprint) {
        for entry in self.0.iter_mut().filter(|entry| entry.hash == hash && !entry.reusable) {
            entry.used_by = Some(key);
        }
    }

    /// Until when the last of those holds that an agent could still use, and that are reusable if that is wanted.
    pub(super) fn unused_until(&self, reusable: bool) -> Option<Timestamp> {
        let unused = self.0.iter().filter(|entry| entry.used_by.is_none() && (entry.reusable || !reusable));
        unused.map(|entry| entry.expires).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(byte: u8, expires: i64) -> Entry {
        Entry {
            hash: TokenHash(Fingerprint::from_bytes([byte; 32])),
            expires: Timestamp(expires),
            reusable: false,
            used_by: None,
        }
    }

    fn tokens(entries: &[Entry]) -> Tokens {
        let mut tokens = Tokens::default();
        for entry in entries {
            tokens.add(entry.clone());
        }
        tokens
    }

    #[test]
    fn a_token_says_whom_it_is_for_and_no_two_are_alike() {
        let id: InstanceId = "homes/lake-house".parse().unwrap();
        let (token, other) = (make(&id).unwrap(), make(&id).unwrap());
        assert_ne!(token, other);
        assert_eq!(instance(&token), Some(id));
        assert!(token.starts_with("lkjoin_") && token.len() < 1024, "{}", token.len());
        for nonsense in
            ["", "lkjoin_", "lkjoin_a", "lkjoin_a.", "lkjoin_a.%", "lkjoin_a.aG9tZXM", "x.aG9tZXMvbGFrZQ"]
        {
            assert_eq!(instance(nonsense), None, "{nonsense}");
        }
        let longest = format!("{}/{}", "a".repeat(63), "b".repeat(253)).parse().unwrap();
        assert!(make(&longest).unwrap().len() <= 1024, "what a proxy takes");
    }

    #[test]
    fn the_annotation_is_read_as_it_was_written_without_what_is_void() {
        let mut used = entry(2, 300);
        used.used_by = Some(Fingerprint::from_bytes([9; 32]));
        let mut reusable = entry(3, 300);
        reusable.reusable = true;
        let all = tokens(&[entry(1, 200), used.clone(), reusable.clone()]);
        let text = all.write().unwrap();
        assert!(text.contains(r#""expires":"1970-01-01T00:03:20Z","reusable":false}"#), "{text}");
        assert_eq!(Tokens::read(Some(&text), Timestamp(199)), all);
        assert_eq!(Tokens::read(Some(&text), Timestamp(200)), tokens(&[used, reusable]));
        assert_eq!(Tokens::read(Some(&text), Timestamp(300)).write(), None);
        assert_eq!(Tokens::read(None, Timestamp(0)), Tokens::default());
    }

    #[test]
    fn nonsense_in_the_annotation_is_no_token_and_spoils_none() {
        let good = tokens(&[entry(1, 200)]).write().unwrap();
        let good = good.trim_start_matches('[').trim_end_matches(']').to_owned();
        for bad in [
            "7",
            "null",
            "{}",
            r#"{"sha256":"ab","expires":"1970-01-01T00:03:20Z"}"#,
            r#"{"sha256":5,"expires":7}"#,
            &good.replace("reusable\":false", "usedBy\":\"somebody\""),
            &good.replace("1970-01-01T00:03:20Z", "soon"),
        ] {
            let text = format!("[{bad},{good}]");
            assert_eq!(Tokens::read(Some(&text), Timestamp(0)).0, [entry(1, 200)], "{text}");
        }
        for text in ["", "{", "[", "{}", "true", &format!("[{good},\"{}\"]", "x".repeat(MAX_TEXT))] {
            assert_eq!(Tokens::read(Some(text), Timestamp(0)), Tokens::default());
        }
    }

    #[test]
    fn there_are_never_too_many() {
        let mut tokens = Tokens::default();
        for byte in 0..MAX_TOKENS {
            tokens.add(entry(u8::try_from(byte).unwrap(), 1000 - i64::try_from(byte).unwrap()));
        }
        tokens.note_use(entry(3, 0).hash, Fingerprint::from_bytes([9; 32]));
        tokens.add(entry(100, 500));
        assert_eq!(tokens.find(entry(3, 0).hash), None, "the used one goes first");
        tokens.add(entry(101, 2000));
        assert_eq!(tokens.find(entry(100, 0).hash), None, "then the one that would be void first");
        assert_eq!(tokens.0.len(), MAX_TOKENS);
        let text = tokens.write().unwrap();
        assert!(text.len() < MAX_TEXT / 2, "{}", text.len());
    }

    #[test]
    fn a_token_for_many_is_not_used_up() {
        let mut reusable = entry(1, 300);
        reusable.reusable = true;
        let mut tokens = tokens(&[reusable.clone(), entry(2, 200)]);
        assert_eq!(
            (tokens.unused_until(true), tokens.unused_until(false)),
            (Some(Timestamp(300)), Some(Timestamp(300)))
        );
        for each in [&reusable, &entry(2, 200)] {
            tokens.note_use(each.hash, Fingerprint::from_bytes([9; 32]));
        }
        assert_eq!(tokens.find(reusable.hash), Some(&reusable));
        assert!(tokens.find(entry(2, 200).hash).unwrap().used_by.is_some());
    }
}
