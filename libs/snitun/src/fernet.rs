//! Fernet, the sealed envelope of session tokens: version, time, IV, AES-128-CBC, HMAC-SHA-256,
//! all in URL-safe base64. Several keys may be valid at once, so that they can be rotated.

use std::fmt;

use aes::{
    Aes128Dec, Aes128Enc,
    cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit},
};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The longest token that is read or written; the reference reads no more than this either.
pub const MAX_TOKEN_LEN: usize = 2048;

/// The most keys that may be valid at once: every one costs a stranger's token an HMAC.
pub const MAX_KEYS: usize = 16;

const VERSION: u8 = 0x80;
const BLOCK: usize = 16;
const TIME_LEN: usize = 8;
const MAC_LEN: usize = 32;
/// Version, time and IV.
const HEAD_LEN: usize = 1 + TIME_LEN + BLOCK;

/// A key, or the list of them, cannot be used. Positions count from 1; the key itself is never named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A line is not 32 bytes in URL-safe base64.
    #[error(
        "line {line} is no Fernet key: it takes 32 random bytes in URL-safe base64 with padding (44 characters)"
    )]
    NotAKey {
        /// Which line it was.
        line: usize,
    },
    /// There was no key at all.
    #[error("there is no Fernet key: write one a line, the newest first")]
    Empty,
    /// More than [`MAX_KEYS`].
    #[error("more than {MAX_KEYS} Fernet keys: remove the oldest")]
    TooMany,
}

/// Why an envelope did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FernetError {
    /// Longer than [`MAX_TOKEN_LEN`].
    #[error("longer than {MAX_TOKEN_LEN} bytes")]
    TooLong,
    /// Not an envelope; half of one looks like this, too.
    #[error("not a Fernet token")]
    Malformed,
    /// None of the keys made it, or it was changed or cut on its way.
    #[error("made with no key known here")]
    UnknownKey,
}

impl FernetError {
    /// Could the rest of a token that arrived in pieces make it a good one?
    pub const fn more_bytes_may_help(self) -> bool {
        !matches!(self, Self::TooLong)
    }
}

#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
struct Key {
    signing: [u8; 16],
    encryption: [u8; 16],
}

impl Key {
    fn from_base64(text: &str) -> Option<Self> {
        let raw = Zeroizing::new(URL_SAFE.decode(text).ok()?);
        let (signing, encryption) = raw.split_first_chunk::<16>()?;
        Some(Self { signing: *signing, encryption: encryption.try_into().ok()? })
    }

    fn mac(&self, signed: &[u8]) -> [u8; MAC_LEN] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.signing) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(signed);
        mac.finalize().into_bytes().into()
    }
}

/// The Fernet keys in force, the newest first: it seals, any of them opens.
#[derive(Clone, PartialEq, Eq)]
pub struct FernetKeys(Vec<Key>);

impl FernetKeys {
    /// Reads one key a line, the newest first; empty lines and lines that begin with `#` are passed over.
    pub fn from_lines(text: &str) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if keys.len() == MAX_KEYS {
                return Err(KeyError::TooMany);
            }
            keys.push(Key::from_base64(line).ok_or(KeyError::NotAKey { line: index + 1 })?);
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self(keys)) }
    }

    /// How many keys are in force; never 0.
    #[expect(clippy::len_without_is_empty, reason = "it cannot be empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Seals `payload` with the newest key. The IV has to be random and new each time.
    pub fn encrypt(&self, payload: &[u8], now_unix: u64, iv: [u8; BLOCK]) -> String {
        let Some(key) = self.0.first() else { unreachable!("there is always a key") };
        let mut raw = Vec::with_capacity(HEAD_LEN + payload.len() + BLOCK + MAC_LEN);
        raw.push(VERSION);
        raw.extend_from_slice(&now_unix.to_be_bytes());
        raw.extend_from_slice(&iv);

        let mut cipher = cbc::Encryptor::<Aes128Enc>::new(&key.encryption.into(), &iv.into());
        let (blocks, rest) = payload.as_chunks::<BLOCK>();
        // PKCS #7: every padding byte says how many there are, and there is always one.
        let padding = u8::try_from(BLOCK - rest.len()).unwrap_or_default();
        let mut last = [padding; BLOCK];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        for block in blocks.iter().chain([&last]) {
            let mut block = (*block).into();
            cipher.encrypt_block(&mut block);
            raw.extend_from_slice(&block);
        }
        let mac = key.mac(&raw);
        raw.extend_from_slice(&mac);
        URL_SAFE.encode(raw)
    }

    /// Opens an envelope with whichever key made it. Its time is not looked at: what is inside says
    /// how long it holds.
    pub fn decrypt(&self, token: &[u8]) -> Result<Zeroizing<Vec<u8>>, FernetError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(FernetError::TooLong);
        }
        let raw = URL_SAFE.decode(token).map_err(|_| FernetError::Malformed)?;
        let (signed, mac) = raw.split_last_chunk::<MAC_LEN>().ok_or(FernetError::Malformed)?;
        let (head, sealed) = signed.split_first_chunk::<HEAD_LEN>().ok_or(FernetError::Malformed)?;
        let iv = *head.last_chunk::<BLOCK>().ok_or(FernetError::Malformed)?;
        let (blocks, rest) = sealed.as_chunks::<BLOCK>();
        if head.first() != Some(&VERSION) || blocks.is_empty() || !rest.is_empty() {
            return Err(FernetError::Malformed);
        }
        let key = self
            .0
            .iter()
            .find(|key| bool::from(key.mac(signed).ct_eq(mac)))
            .ok_or(FernetError::UnknownKey)?;

        let mut cipher = cbc::Decryptor::<Aes128Dec>::new(&key.encryption.into(), &iv.into());
        let mut payload = Zeroizing::new(Vec::with_capacity(sealed.len()));
        for block in blocks {
            let mut block = (*block).into();
            cipher.decrypt_block(&mut block);
            payload.extend_from_slice(&block);
        }
        // The MAC was good, so that bad padding tells nobody anything: a holder of the key wrote it.
        let padding = payload.last().copied().unwrap_or_default();
        let kept = payload.len().checked_sub(usize::from(padding)).ok_or(FernetError::Malformed)?;
        let sound = (1..=BLOCK).contains(&usize::from(padding))
            && payload.iter().skip(kept).all(|byte| *byte == padding);
        if !sound {
            return Err(FernetError::Malformed);
        }
        payload.truncate(kept);
        Ok(payload)
    }
}

impl fmt::Debug for FernetKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FernetKeys({} of them)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(bytes: &[u8]) -> FernetKeys {
        let lines: Vec<String> = bytes.iter().map(|byte| URL_SAFE.encode([*byte; 32])).collect();
        FernetKeys::from_lines(&lines.join("\n")).unwrap()
    }

    /// The example of the Fernet specification.
    #[test]
    fn agrees_with_the_specification() {
        let keys = FernetKeys::from_lines("cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=").unwrap();
        let token = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
        let iv: [u8; 16] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(keys.encrypt(b"hello", 499_162_800, iv), token);
        assert_eq!(keys.decrypt(token.as_bytes()).unwrap().as_slice(), b"hello");
    }

    #[test]
    fn a_rotated_key_still_opens_and_the_newest_seals() {
        let old = keys(&[1]);
        let both = keys(&[2, 1]);
        let new = keys(&[2]);
        assert_eq!(both.decrypt(old.encrypt(b"x", 0, [0; 16]).as_bytes()).unwrap().as_slice(), b"x");
        let token = both.encrypt(b"y", 0, [0; 16]);
        assert_eq!(new.decrypt(token.as_bytes()).unwrap().as_slice(), b"y");
        assert_eq!(old.decrypt(token.as_bytes()), Err(FernetError::UnknownKey));
    }

    #[test]
    fn any_changed_character_is_noticed() {
        let keys = keys(&[3]);
        let token = keys.encrypt(b"the payload of a token", 1, [9; 16]).into_bytes();
        for position in 0..token.len() {
            let mut changed = token.clone();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            assert!(keys.decrypt(&changed).is_err(), "position {position}");
        }
        for length in 0..token.len() {
            let error = keys.decrypt(&token[..length]).unwrap_err();
            assert!(error.more_bytes_may_help(), "length {length}");
        }
    }

    #[test]
    fn too_long_is_refused_unread() {
        let error = keys(&[1]).decrypt(&[b'A'; MAX_TOKEN_LEN + 1]).unwrap_err();
        assert_eq!(error, FernetError::TooLong);
        assert!(!error.more_bytes_may_help());
    }

    #[test]
    fn bad_padding_under_a_good_mac_is_refused() {
        let keys = keys(&[5]);
        let key = &keys.0[0];
        for last in [0, 17, 255] {
            let iv = [0; 16];
            let mut block = [last; 16].into();
            cbc::Encryptor::<Aes128Enc>::new(&key.encryption.into(), &iv.into()).encrypt_block(&mut block);
            let mut raw = vec![VERSION];
            raw.extend_from_slice(&[0; 8]);
            raw.extend_from_slice(&iv);
            raw.extend_from_slice(&block);
            let mac = key.mac(&raw);
            raw.extend_from_slice(&mac);
            assert_eq!(keys.decrypt(URL_SAFE.encode(raw).as_bytes()), Err(FernetError::Malformed));
        }
    }

    #[test]
    fn keys_are_read_line_by_line_and_never_shown() {
        let good = URL_SAFE.encode([7; 32]);
        let text = format!("# rotated on Monday\n\n  {good}\r\n{good}\n");
        let keys = FernetKeys::from_lines(&text).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(format!("{keys:?}"), "FernetKeys(2 of them)");
        assert_eq!(FernetKeys::from_lines("\n# nothing\n"), Err(KeyError::Empty));
        let short = URL_SAFE.encode([7; 31]);
        assert_eq!(FernetKeys::from_lines(&format!("{good}\n{short}")), Err(KeyError::NotAKey { line: 2 }));
        assert_eq!(FernetKeys::from_lines(&format!("{good}\n").repeat(17)), Err(KeyError::TooMany));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(payload in proptest::collection::vec(any::<u8>(), 0..600), iv: [u8; 16], now: u64) {
            let keys = keys(&[1, 2]);
            let token = keys.encrypt(&payload, now, iv);
            let opened = keys.decrypt(token.as_bytes()).unwrap();
            prop_assert_eq!(opened.as_slice(), payload.as_slice());
        }

        #[test]
        fn any_bytes_are_survived(token in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(keys(&[1]).decrypt(&token).is_err());
        }
    }
}
