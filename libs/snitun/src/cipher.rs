//! The three ciphers of the wire. They cover headers, challenges and the address in NEW, never the
//! visitor's bytes: those are TLS already.

use std::{fmt, str::FromStr, sync::Arc};

use aes::{
    Aes256Dec, Aes256Enc,
    cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit},
};
use aws_lc_rs::aead::{AES_256_GCM, AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::random::Random;

const TAG_LEN: usize = 16;
const BLOCK: usize = 16;

/// Which cipher a session uses; named as in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CipherKind {
    /// AES-256-CBC, one running stream in each direction. What stock clients speak.
    #[default]
    #[serde(rename = "aes-cbc")]
    AesCbc,
    /// AES-256-GCM with counted nonces: broken as soon as a key is used for a second session.
    #[serde(rename = "aes-gcm")]
    AesGcm,
    /// AES-256-GCM-SIV with random nonces: survives a replayed token.
    #[serde(rename = "aes-gcm-siv")]
    AesGcmSiv,
}

impl CipherKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AesCbc, Self::AesGcm, Self::AesGcmSiv];

    /// The name in tokens and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesCbc => "aes-cbc",
            Self::AesGcm => "aes-gcm",
            Self::AesGcmSiv => "aes-gcm-siv",
        }
    }

    /// Bytes a sealed unit is longer than its plain text.
    pub const fn overhead(self) -> usize {
        match self {
            Self::AesCbc => 0,
            Self::AesGcm | Self::AesGcmSiv => NONCE_LEN + TAG_LEN,
        }
    }
}

impl fmt::Display for CipherKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no cipher of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown cipher: use aes-cbc, aes-gcm or aes-gcm-siv")]
pub struct UnknownCipher;

impl FromStr for CipherKind {
    type Err = UnknownCipher;

    fn from_str(text: &str) -> Result<Self, UnknownCipher> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(UnknownCipher)
    }
}

macro_rules! secret_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Reads exactly as many hexadecimal digits as the value has.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut out = Self([0; $len]);
                if text.len() != 2 * $len || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                for (byte, pair) in out.0.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
                }
                Some(out)
            }

            /// Lower-case hexadecimal, as tokens and session files carry it.
            pub fn to_hex(&self) -> String {
                use fmt::Write;
                self.0.iter().fold(String::with_capacity(2 * $len), |mut text, byte| {
                    let _ = write!(text, "{byte:02x}");
                    text
                })
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

secret_bytes!(
    /// The AES-256 key of a session.
    AesKey,
    32
);
secret_bytes!(
    /// The initial vector of a session; only `aes-cbc` uses it.
    AesIv,
    16
);

/// Which end of the tunnel we are; a counted nonce names its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opened the TCP connection: an agent.
    Client,
    /// Accepted it: a proxy.
    Server,
}

impl Role {
    const fn direction(self) -> u32 {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }
}

/// A unit did not authenticate, or has no lawful length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a unit of the tunnel does not decrypt")]
pub struct BadUnit;

/// Encrypts what we send, in the order of sending.
pub struct Sealer(Seal);

enum Seal {
    Cbc(Box<cbc::Encryptor<Aes256Enc>>),
    Gcm { key: Arc<LessSafeKey>, direction: u32, counter: u64 },
    GcmSiv { key: Arc<LessSafeKey> },
}

/// Decrypts what the peer sent, in the order of arrival.
pub struct Opener(Open);

enum Open {
    Cbc(Box<cbc::Decryptor<Aes256Dec>>),
    Aead { key: Arc<LessSafeKey> },
}

/// Both directions of a session's cipher.
///
/// The counter of `aes-gcm` starts at a random place, so that a key used for a second session does
/// not repeat the nonces of the first from its first unit on.
pub fn pair(
    kind: CipherKind,
    key: &AesKey,
    iv: &AesIv,
    role: Role,
    random: &mut impl Random,
) -> (Sealer, Opener) {
    let aead = |algorithm| {
        // The key has the length the algorithm asks for: the type says so.
        UnboundKey::new(algorithm, &key.0).map(|key| Arc::new(LessSafeKey::new(key)))
    };
    let cbc = || {
        (
            Sealer(Seal::Cbc(Box::new(cbc::Encryptor::new(&key.0.into(), &iv.0.into())))),
            Opener(Open::Cbc(Box::new(cbc::Decryptor::new(&key.0.into(), &iv.0.into())))),
        )
    };
    match kind {
        CipherKind::AesCbc => cbc(),
        CipherKind::AesGcm => match aead(&AES_256_GCM) {
            Ok(key) => {
                // The upper half of the range is left free, so that counting cannot wrap.
                let counter = u64::from_be_bytes(random.array()) >> 1;
                let direction = role.direction();
                (Sealer(Seal::Gcm { key: key.clone(), direction, counter }), Opener(Open::Aead { key }))
            }
            Err(_) => unreachable!("a 32 byte key fits AES-256-GCM"),
        },
        CipherKind::AesGcmSiv => match aead(&AES_256_GCM_SIV) {
            Ok(key) => (Sealer(Seal::GcmSiv { key: key.clone() }), Opener(Open::Aead { key })),
            Err(_) => unreachable!("a 32 byte key fits AES-256-GCM-SIV"),
        },
    }
}

impl Sealer {
    /// Bytes a sealed unit is longer than its plain text.
    pub const fn overhead(&self) -> usize {
        match self.0 {
            Seal::Cbc(_) => 0,
            _ => NONCE_LEN + TAG_LEN,
        }
    }

    /// Bytes before the plain text in a unit.
    pub const fn prefix(&self) -> usize {
        match self.0 {
            Seal::Cbc(_) => 0,
            _ => NONCE_LEN,
        }
    }

    /// Seals a unit in place. Its plain text stands after [`prefix`](Self::prefix) bytes and is
    /// followed by room for the rest of the [`overhead`](Self::overhead).
    pub fn seal(&mut self, unit: &mut [u8], random: &mut impl Random) -> Result<(), BadUnit> {
        let (key, nonce) = match &mut self.0 {
            Seal::Cbc(stream) => {
                for block in unit.chunks_exact_mut(BLOCK) {
                    stream.encrypt_block(block.try_into().map_err(|_| BadUnit)?);
                }
                return if unit.len().is_multiple_of(BLOCK) { Ok(()) } else { Err(BadUnit) };
            }
            Seal::Gcm { key, direction, counter } => {
                let mut nonce = [0; NONCE_LEN];
                let (front, back) = nonce.split_at_mut(4);
                front.copy_from_slice(&direction.to_be_bytes());
                back.copy_from_slice(&counter.to_be_bytes());
                *counter = counter.wrapping_add(1);
                (key, nonce)
            }
            Seal::GcmSiv { key } => (key, random.array()),
        };
        let (head, rest) = unit.split_at_mut_checked(NONCE_LEN).ok_or(BadUnit)?;
        head.copy_from_slice(&nonce);
        let plain = rest.len().checked_sub(TAG_LEN).ok_or(BadUnit)?;
        let (text, room) = rest.split_at_mut_checked(plain).ok_or(BadUnit)?;
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), text)
            .map_err(|_| BadUnit)?;
        room.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Seals `plain` and appends the unit to `out`.
    pub fn append(
        &mut self,
        plain: &[u8],
        random: &mut impl Random,
        out: &mut Vec<u8>,
    ) -> Result<(), BadUnit> {
        let start = out.len();
        out.resize(start + self.prefix(), 0);
        out.extend_from_slice(plain);
        out.resize(start + plain.len() + self.overhead(), 0);
        self.seal(out.get_mut(start..).unwrap_or_default(), random)
    }
}

impl Opener {
    /// Bytes a sealed unit is longer than its plain text.
    pub const fn overhead(&self) -> usize {
        match self.0 {
            Open::Cbc(_) => 0,
            Open::Aead { .. } => NONCE_LEN + TAG_LEN,
        }
    }

    /// Opens one unit in place and returns its plain text.
    pub fn open<'a>(&mut self, unit: &'a mut [u8]) -> Result<&'a mut [u8], BadUnit> {
        match &mut self.0 {
            Open::Cbc(stream) => {
                if !unit.len().is_multiple_of(BLOCK) {
                    return Err(BadUnit);
                }
                for block in unit.chunks_exact_mut(BLOCK) {
                    stream.decrypt_block(block.try_into().map_err(|_| BadUnit)?);
                }
                Ok(unit)
            }
            Open::Aead { key } => {
                let (nonce, sealed) = unit.split_at_mut_checked(NONCE_LEN).ok_or(BadUnit)?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BadUnit)?;
                key.open_in_place(nonce, Aad::empty(), sealed).map_err(|_| BadUnit)
            }
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(..)")
    }
}
