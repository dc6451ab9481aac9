//! Proof that both sides hold the session's key: the server sends a sealed secret, the client answers
//! with its sealed hash.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    cipher::{BadUnit, Opener, Sealer},
    random::Random,
};

/// Plain bytes of the challenge and of the answer.
pub const UNIT_LEN: usize = 32;

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The unit does not decrypt, or is not of the length it must have.
    #[error("the handshake does not decrypt: the two sides hold different keys")]
    BadUnit,
    /// The answer is not the hash of the challenge.
    #[error("the answer to the challenge is wrong: the two sides hold different keys")]
    WrongAnswer,
}

impl From<BadUnit> for HandshakeError {
    fn from(_: BadUnit) -> Self {
        Self::BadUnit
    }
}

/// The server's side: what it asked.
pub struct Challenge {
    expected: [u8; 32],
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenge(..)")
    }
}

impl Challenge {
    /// Makes a challenge and appends its sealed form to `out`.
    pub fn ask(
        sealer: &mut Sealer,
        random: &mut impl Random,
        out: &mut Vec<u8>,
    ) -> Result<Self, HandshakeError> {
        let secret: [u8; UNIT_LEN] = random.array();
        sealer.append(&secret, random, out)?;
        Ok(Self { expected: Sha256::digest(secret).into() })
    }

    /// Checks the client's sealed answer.
    pub fn check(&self, opener: &mut Opener, answer: &mut [u8]) -> Result<(), HandshakeError> {
        let plain: &[u8] = opener.open(answer)?;
        if bool::from(plain.ct_eq(&self.expected)) { Ok(()) } else { Err(HandshakeError::WrongAnswer) }
    }
}

/// The client's side: opens a challenge and appends the sealed answer to `out`.
pub fn answer(
    sealer: &mut Sealer,
    opener: &mut Opener,
    challenge: &mut [u8],
    random: &mut impl Random,
    out: &mut Vec<u8>,
) -> Result<(), HandshakeError> {
    let secret: &[u8] = opener.open(challenge)?;
    if secret.len() != UNIT_LEN {
        return Err(HandshakeError::BadUnit);
    }
    let hash: [u8; 32] = Sha256::digest(secret).into();
    sealer.append(&hash, random, out)?;
    Ok(())
}
