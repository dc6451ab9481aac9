//! Protocol versions, and what each one lets the two sides say.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A version of the wire protocol.
///
/// A side is always told the version of the *other* one: a server reads it in the token, a client is
/// started with it. What we may send depends on that version alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// No flow control, IPv4 visitors only.
    #[default]
    V0,
    /// PAUSE and RESUME are understood.
    V1,
    /// NEW carries the visitor's address, IPv4 or IPv6, in an encrypted body.
    V2,
}

impl ProtocolVersion {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// Reads a number; a version newer than ours is spoken to as our newest.
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::V0,
            1 => Self::V1,
            _ => Self::V2,
        }
    }

    /// May PAUSE and RESUME be sent to a peer of this version?
    pub const fn understands_pause(self) -> bool {
        !matches!(self, Self::V0)
    }

    /// Does NEW carry an encrypted address between us and a peer of this version?
    pub const fn encrypts_address(self) -> bool {
        matches!(self, Self::V2)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl Serialize for ProtocolVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for ProtocolVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self::from_number)
    }
}
