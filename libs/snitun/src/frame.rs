//! The 32-byte header of a frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::random::Random;

/// Plain bytes of a header.
pub const HEADER_LEN: usize = 32;

/// Names a channel; chosen by the side that opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub [u8; 16]);

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A channel is opened.
    New,
    /// Bytes of a channel follow.
    Data,
    /// A channel is gone, both ways.
    Close,
    /// Are you there; or the answer to it.
    Ping,
    /// Stop reading for this channel.
    Pause,
    /// Go on.
    Resume,
    /// Something a newer peer says: passed over.
    Unknown(u8),
}

impl Flow {
    const fn byte(self) -> u8 {
        match self {
            Self::New => 0x01,
            Self::Data => 0x02,
            Self::Close => 0x04,
            Self::Ping => 0x08,
            // Not powers of two: 22 and 50, whatever a comment in the reference says.
            Self::Pause => 0x16,
            Self::Resume => 0x32,
            Self::Unknown(byte) => byte,
        }
    }

    const fn from_byte(byte: u8) -> Self {
        match byte {
            0x01 => Self::New,
            0x02 => Self::Data,
            0x04 => Self::Close,
            0x08 => Self::Ping,
            0x16 => Self::Pause,
            0x32 => Self::Resume,
            other => Self::Unknown(other),
        }
    }
}

/// The free bytes of a header.
pub type Extra = [u8; 11];

/// A header in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose frame it is.
    pub channel: ChannelId,
    /// What it says.
    pub flow: Flow,
    /// Bytes of body that follow, before any cipher's overhead.
    pub size: u32,
    /// Words of PING, the address of an old NEW; random otherwise.
    pub extra: Extra,
}

impl Header {
    /// Writes the header in clear.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let (channel, rest) = out.split_at_mut(16);
        channel.copy_from_slice(&self.channel.0);
        let (flow, rest) = rest.split_at_mut(1);
        flow.copy_from_slice(&[self.flow.byte()]);
        let (size, extra) = rest.split_at_mut(4);
        size.copy_from_slice(&self.size.to_be_bytes());
        extra.copy_from_slice(&self.extra);
        out
    }

    /// Reads a header in clear: every 32 bytes are one.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let &[
            c0,
            c1,
            c2,
            c3,
            c4,
            c5,
            c6,
            c7,
            c8,
            c9,
            c10,
            c11,
            c12,
            c13,
            c14,
            c15,
            flow,
            s0,
            s1,
            s2,
            s3,
            ref extra @ ..,
        ] = bytes;
        Self {
            channel: ChannelId([c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15]),
            flow: Flow::from_byte(flow),
            size: u32::from_be_bytes([s0, s1, s2, s3]),
            extra: *extra,
        }
    }
}

/// `words`, then random bytes.
pub(crate) fn extra(words: &[u8], random: &mut impl Random) -> Extra {
    let mut out = random.array::<11>();
    for (to, from) in out.iter_mut().zip(words) {
        *to = *from;
    }
    out
}

const FAMILY_V4: u8 = b'4';
const FAMILY_V6: u8 = b'6';

/// The address as NEW carries it before version 2: IPv4 in the extra bytes; any other visitor is `0.0.0.0`.
pub(crate) fn address_in_extra(address: Option<IpAddr>) -> [u8; 5] {
    let [a, b, c, d] = match address {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => v6.to_ipv4_mapped().map_or([0; 4], |v4| v4.octets()),
        None => [0; 4],
    };
    [FAMILY_V4, a, b, c, d]
}

/// Reads what [`address_in_extra`] wrote; `0.0.0.0` means that nobody knows.
pub(crate) fn address_from_extra(extra: &Extra) -> Option<IpAddr> {
    let &[_, a, b, c, d, ..] = extra;
    known(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
}

/// The plain body of a version 2 NEW: family and address, random up to a multiple of 16.
pub(crate) fn address_body(address: Option<IpAddr>, random: &mut impl Random) -> ([u8; 32], usize) {
    let mut body = random.array::<32>();
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
    let (v4, v6);
    let (family, octets, len): (u8, &[u8], usize) = match address {
        IpAddr::V4(address) => {
            v4 = address.octets();
            (FAMILY_V4, &v4, 16)
        }
        IpAddr::V6(address) => {
            v6 = address.octets();
            (FAMILY_V6, &v6, 32)
        }
    };
    for (to, from) in body.iter_mut().zip(std::iter::once(&family).chain(octets)) {
        *to = *from;
    }
    (body, len)
}

/// Reads the plain body of a version 2 NEW; a truncated one is an error.
pub(crate) fn address_from_body(body: &[u8]) -> Result<Option<IpAddr>, ()> {
    let (family, rest) = body.split_first().ok_or(())?;
    let address = if *family == FAMILY_V6 {
        let octets: [u8; 16] = rest.get(..16).and_then(|octets| octets.try_into().ok()).ok_or(())?;
        IpAddr::V6(Ipv6Addr::from(octets))
    } else {
        let octets: [u8; 4] = rest.get(..4).and_then(|octets| octets.try_into().ok()).ok_or(())?;
        IpAddr::V4(Ipv4Addr::from(octets))
    };
    Ok(known(address))
}

fn known(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_survives_the_wire() {
        for byte in 0..=u8::MAX {
            assert_eq!(Flow::from_byte(byte).byte(), byte);
        }
        assert_eq!((Flow::Pause.byte(), Flow::Resume.byte()), (22, 50));
    }

    #[test]
    fn an_ipv6_visitor_is_unknown_before_version_2() {
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(address_in_extra(Some(v6)), [b'4', 0, 0, 0, 0]);
        let mapped: IpAddr = "::ffff:203.0.113.7".parse().unwrap();
        assert_eq!(address_in_extra(Some(mapped)), [b'4', 203, 0, 113, 7]);
    }
}
