//! May this key in with this token? Pure.
//!
//! | token | key | outcome |
//! |---|---|---|
//! | not among the instance's, or void | any | refused |
//! | good for many | known | in already |
//! | good for many, or not used | new | in: the annotations say so in one edit |
//! | used | the one that used it, still known | in already: the first answer was lost on its way |
//! | used | the one that used it, removed since | refused: who was shut out does not come back by an old bundle |
//! | used | another | refused |
//! | any good one | new, and there are 64 | refused |

use std::collections::{BTreeMap, BTreeSet};

use resources::{AGENT_KEYS_ANNOTATION, Timestamp};
use route_table::{Fingerprint, MAX_AGENT_KEYS_PER_ROUTE};

use super::tokens::{TOKENS_ANNOTATION, TokenHash, Tokens};

/// A key that may in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It is in.
    Already,
    /// It is in once these annotations are as said; `None` is to be removed.
    Write([(&'static str, Option<String>); 2]),
}

/// Why a key may not in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Nobody handed it out, or it is forgotten.
    #[error("This join token is unknown or has expired: ask for a new bundle.")]
    Unknown,
    /// Another key came with it before.
    #[error("This join token was used before: ask for a new bundle.")]
    Used,
    /// No room.
    #[error("The instance has {MAX_AGENT_KEYS_PER_ROUTE} agent keys, which is the most: remove one first.")]
    TooMany,
}

/// Decides. `declared` are the keys that the spec has.
pub(super) fn admit(
    annotations: &BTreeMap<String, String>,
    declared: &[Fingerprint],
    hash: TokenHash,
    key: Fingerprint,
    now: Timestamp,
) -> Result<Admitted, Refused> {
    let mut tokens = Tokens::read(annotations.get(TOKENS_ANNOTATION).map(String::as_str), now);
    let token = tokens.find(hash).ok_or(Refused::Unknown)?;
    let enrolled = annotations.get(AGENT_KEYS_ANNOTATION).map_or("", String::as_str);
    let mut enrolled: Vec<&str> =
        enrolled.split(',').map(str::trim).filter(|each| !each.is_empty()).collect();
    let keys: BTreeSet<Fingerprint> = enrolled.iter().filter_map(|each| each.parse().ok()).collect();
    let known = keys.contains(&key);
    match token.used_by {
        Some(used_by) if used_by == key && known => return Ok(Admitted::Already),
        Some(_) => return Err(Refused::Used),
        None if token.reusable && known => return Ok(Admitted::Already),
        None => {}
    }
    let text = key.to_string();
    if !known {
        let others: BTreeSet<&Fingerprint> =
            keys.iter().chain(declared).filter(|each| **each != key).collect();
        // Texts that are no keys take room, too: the annotation is bounded whatever is in it.
        if others.len().max(enrolled.len()) >= MAX_AGENT_KEYS_PER_ROUTE {
            return Err(Refused::TooMany);
        }
        enrolled.push(&text);
    }
    tokens.note_use(hash, key);
    Ok(Admitted::Write([
        (AGENT_KEYS_ANNOTATION, Some(enrolled.join(","))),
        (TOKENS_ANNOTATION, tokens.write()),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::joining::tokens::Entry;

    const NOW: Timestamp = Timestamp(1_000);

    fn key(byte: u8) -> Fingerprint {
        Fingerprint::from_bytes([byte; 32])
    }

    fn instance(reusable: bool, keys: &str) -> BTreeMap<String, String> {
        let mut tokens = Tokens::default();
        let hash = TokenHash::of("good");
        tokens.add(Entry { hash, expires: Timestamp(2_000), reusable, used_by: None });
        BTreeMap::from([
            (TOKENS_ANNOTATION.to_owned(), tokens.write().unwrap()),
            (AGENT_KEYS_ANNOTATION.to_owned(), keys.to_owned()),
        ])
    }

    /// Does what is to be written.
    fn enrol(
        annotations: &mut BTreeMap<String, String>,
        token: &str,
        key: Fingerprint,
        now: Timestamp,
    ) -> Result<bool, Refused> {
        Ok(match admit(annotations, &[], TokenHash::of(token), key, now)? {
            Admitted::Already => false,
            Admitted::Write(changes) => {
                for (name, value) in changes {
                    match value {
                        Some(value) => annotations.insert(name.to_owned(), value),
                        None => annotations.remove(name),
                    };
                }
                true
            }
        })
    }

    #[test]
    fn once_is_once_and_the_same_agent_may_ask_again() {
        let mut lake = instance(false, "");
        assert_eq!(enrol(&mut lake, "bad", key(1), NOW), Err(Refused::Unknown));
        assert_eq!(enrol(&mut lake, "good", key(1), Timestamp(2_000)), Err(Refused::Unknown), "void");
        assert_eq!(enrol(&mut lake, "good", key(1), NOW), Ok(true));
        assert_eq!(lake[AGENT_KEYS_ANNOTATION], key(1).to_string());
        assert_eq!(enrol(&mut lake, "good", key(1), NOW), Ok(false), "the answer was lost");
        assert_eq!(enrol(&mut lake, "good", key(2), NOW), Err(Refused::Used));
        lake.remove(AGENT_KEYS_ANNOTATION);
        assert_eq!(enrol(&mut lake, "good", key(1), NOW), Err(Refused::Used), "who was removed stays out");
    }

    #[test]
    fn many_get_in_by_a_token_for_many() {
        let mut lake = instance(true, &format!(" {} ,", key(9)));
        for byte in [1, 2, 1] {
            enrol(&mut lake, "good", key(byte), NOW).unwrap();
        }
        let keys = [key(9), key(1), key(2)].map(|key| key.to_string());
        assert_eq!(lake[AGENT_KEYS_ANNOTATION], keys.join(","));
    }

    #[test]
    fn a_key_that_is_known_uses_up_what_it_uses() {
        let mut lake = instance(false, &key(1).to_string());
        assert_eq!(enrol(&mut lake, "good", key(1), NOW), Ok(true));
        assert_eq!(lake[AGENT_KEYS_ANNOTATION], key(1).to_string());
        assert_eq!(enrol(&mut lake, "good", key(2), NOW), Err(Refused::Used));
    }

    #[test]
    fn there_is_room_for_sixty_four() {
        let keys = |count: u8| (1..=count).map(|byte| key(byte).to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(enrol(&mut instance(false, &keys(63)), "good", key(100), NOW), Ok(true));
        assert_eq!(enrol(&mut instance(false, &keys(64)), "good", key(100), NOW), Err(Refused::TooMany));
        assert_eq!(enrol(&mut instance(true, &keys(64)), "good", key(64), NOW), Ok(false), "in already");
        let declared = [key(70)];
        let full = admit(&instance(false, &keys(63)), &declared, TokenHash::of("good"), key(100), NOW);
        assert_eq!(full, Err(Refused::TooMany), "those of the spec count");
        assert!(admit(&instance(false, &keys(63)), &declared, TokenHash::of("good"), key(70), NOW).is_ok());
        let nonsense = "x,".repeat(64);
        assert_eq!(enrol(&mut instance(false, &nonsense), "good", key(1), NOW), Err(Refused::TooMany));
    }
}
