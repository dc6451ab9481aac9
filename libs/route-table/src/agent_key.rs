//! Keys by which agents are known.

use std::fmt;
use std::str::FromStr;

/// SHA-256 of an agent's public key (its `SubjectPublicKeyInfo` in DER). Shows as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// An agent's key and the generation of keys it belongs to: raising a route's generation shuts out every key and
/// token of an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgentKey {
    /// Which key.
    pub fingerprint: Fingerprint,
    /// Of which generation.
    pub generation: u64,
}

/// Why a text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a fingerprint: write SHA-256 as 64 hex digits (colons between them are fine), as printed by \
     `latchkey-agent key`"
)]
pub struct FingerprintError {
    text: String,
}

impl Fingerprint {
    /// A fingerprint from the digest itself.
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || FingerprintError { text: text.chars().take(100).collect() };
        let mut digest = [0_u8; 32];
        let mut digits = text.chars().filter(|each| *each != ':').map(|each| each.to_digit(16));
        for byte in &mut digest {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(error());
            };
            *byte = u8::try_from(high * 16 + low).map_err(|_| error())?;
        }
        if digits.next().is_some() { Err(error()) } else { Ok(Self(digest)) }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written as one text: fingerprints are shown by the hundred thousand.
        let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
        let mut text = [0_u8; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        formatter.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_in_any_case_and_with_colons() {
        let plain = "00ff10".to_owned() + &"ab".repeat(29);
        let colons = "00:FF:10".to_owned() + &":AB".repeat(29);
        let read: Fingerprint = plain.parse().unwrap();
        assert_eq!(colons.parse::<Fingerprint>().unwrap(), read);
        assert_eq!(read.to_string(), plain);
        assert_eq!(read.as_bytes()[..3], [0x00, 0xff, 0x10]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "ab", &"ab".repeat(31), &"ab".repeat(33), &"xy".repeat(32), &("ab".repeat(31) + "a")]
        {
            let message = text.parse::<Fingerprint>().unwrap_err().to_string();
            assert!(message.contains("64 hex digits"), "{text:?}");
        }
    }
}
