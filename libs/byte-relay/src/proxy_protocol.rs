//! The PROXY protocol, versions 1 and 2: who the peer of the load balancer before us is, and, for an
//! instance behind us, who ours is.
//!
//! [`read`] only tells what a header says. Whether its sender may be believed is for the caller to
//! decide before asking: anybody can write one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ppp::{v1, v2};

/// The longest header that is read, type-length-values included.
pub const MAX_HEADER: usize = 4096;

const V1_PREFIX: &[u8] = b"PROXY ";
/// A line of version 1 with its end, as the specification bounds it.
const V1_MAX_LINE: usize = 107;
const V2_FIXED: usize = 16;

/// What the bytes gathered so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The beginning of a header; ask again with more.
    NeedMore,
    /// No header: the bytes are the connection's own.
    None,
    /// A whole header.
    Header {
        /// The connection's real peer. `None` where the sender speaks for itself (health checks: LOCAL)
        /// or does not know (UNKNOWN, UNSPEC, UNIX sockets): the TCP peer is the source then.
        source: Option<SocketAddr>,
        /// How many bytes the header takes; the connection's own follow.
        consumed: usize,
    },
    /// The beginning of a header, but not a lawful one; why. The connection has to be closed.
    Invalid(&'static str),
}

/// Looks at all the bytes gathered so far. An IPv4 address in IPv6 clothes comes out as IPv4.
pub fn read(bytes: &[u8]) -> Answer {
    if starts_like(bytes, v2::PROTOCOL_PREFIX) {
        read_v2(bytes)
    } else if starts_like(bytes, V1_PREFIX) {
        read_v1(bytes)
    } else {
        Answer::None
    }
}

/// Is one of the two the beginning of the other?
fn starts_like(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected)
}

fn read_v1(bytes: &[u8]) -> Answer {
    let line = bytes.get(..V1_MAX_LINE).unwrap_or(bytes);
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        let full = bytes.len() >= V1_MAX_LINE;
        return if full { Answer::Invalid("a PROXY line that does not end") } else { Answer::NeedMore };
    };
    let consumed = end + 1;
    let Some(line) = line.get(..end).and_then(|line| line.strip_suffix(b"\r")) else {
        return Answer::Invalid("a PROXY line that does not end in CR LF");
    };
    // What follows UNKNOWN is to be passed over, whatever it is.
    if let Some(rest) = line.strip_prefix(b"PROXY UNKNOWN")
        && matches!(rest, [] | [b' ', ..])
    {
        return Answer::Header { source: None, consumed };
    }
    // Rust would read `+80` as a number.
    if line.contains(&b'+') {
        return Answer::Invalid("a PROXY line that cannot be read");
    }
    // The parser is shown whole lines only: of the beginning of one it says now and then that no end
    // could make it right.
    match v1::Header::try_from(bytes.get(..consumed).unwrap_or(bytes)).map(|header| header.addresses) {
        Ok(v1::Addresses::Tcp4(a)) => found((a.source_address, a.source_port), consumed),
        Ok(v1::Addresses::Tcp6(a)) => found((a.source_address, a.source_port), consumed),
        Ok(v1::Addresses::Unknown) => Answer::Header { source: None, consumed },
        Err(_) => Answer::Invalid("a PROXY line that cannot be read"),
    }
}

fn read_v2(bytes: &[u8]) -> Answer {
    let Some([.., high, low]) = bytes.first_chunk::<V2_FIXED>() else { return Answer::NeedMore };
    if V2_FIXED + usize::from(u16::from_be_bytes([*high, *low])) > MAX_HEADER {
        return Answer::Invalid("a PROXY header over 4096 bytes");
    }
    let header = match v2::Header::try_from(bytes) {
        Ok(header) => header,
        Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => return Answer::NeedMore,
        Err(v2::ParseError::Version(_)) => return Answer::Invalid("a PROXY header of an unknown version"),
        Err(v2::ParseError::Command(_)) => return Answer::Invalid("a PROXY header with an unknown command"),
        Err(_) => return Answer::Invalid("a PROXY header with unreadable addresses"),
    };
    let consumed = header.len();
    if header.command == v2::Command::Local || header.protocol != v2::Protocol::Stream {
        return Answer::Header { source: None, consumed };
    }
    match header.addresses {
        v2::Addresses::IPv4(a) => found((a.source_address, a.source_port), consumed),
        v2::Addresses::IPv6(a) => found((a.source_address, a.source_port), consumed),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Answer::Header { source: None, consumed },
    }
}

fn found<A: Into<IpAddr>>((address, port): (A, u16), consumed: usize) -> Answer {
    Answer::Header { source: Some(SocketAddr::new(address.into().to_canonical(), port)), consumed }
}

/// A header of version 2 for a TCP connection from `source` to `destination`. Where only one of them is
/// IPv6, the other is written as an IPv4-mapped one, as the header has room for one family.
pub fn write_v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    let addresses: v2::Addresses = match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => (source, destination).into(),
        _ => (mapped(source), mapped(destination)).into(),
    };
    v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, v2::Protocol::Stream, addresses)
        .build()
        // Only values of more than 64 KiB can fail, and there is none.
        .unwrap_or_default()
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddrV6::new(ip, address.port(), 0, 0).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TLS: &[u8] = b"\x16\x03\x01";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Asks as a connection would: after each further byte, until there is an answer.
    fn read_bytewise(bytes: &[u8]) -> Answer {
        (0..=bytes.len())
            .map(|length| read(&bytes[..length]))
            .find(|answer| *answer != Answer::NeedMore)
            .unwrap_or(Answer::NeedMore)
    }

    #[track_caller]
    fn check(header: &[u8], expected: Answer) {
        let bytes = [header, TLS].concat();
        assert_eq!(read(&bytes), expected);
        assert_eq!(read_bytewise(&bytes), expected, "byte by byte");
    }

    fn from(source: Option<&str>, consumed: usize) -> Answer {
        Answer::Header { source: source.map(address), consumed }
    }

    fn v2(version_command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[version_command, family], &length, payload].concat()
    }

    #[test]
    fn version_1_lines() {
        for (line, source) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", Some("192.0.2.1:56324")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 1 443\r\n", Some("[2001:db8::1]:1")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 443\r\n", Some("192.0.2.1:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f a b c d e f g \r \r\n", None),
        ] {
            check(line.as_bytes(), from(source, line.len()));
        }
    }

    #[test]
    fn bad_version_1_lines() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\n",
            "PROXY TCP4 192.0.2.256 198.51.100.7 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.7 1 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
        ] {
            let answer = read(line.as_bytes());
            assert!(matches!(answer, Answer::Invalid(_)), "{line}: {answer:?}");
            assert_eq!(read_bytewise(line.as_bytes()), answer, "{line}");
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat();
        check(&endless, Answer::Invalid("a PROXY line that does not end"));
        assert_eq!(read(&endless[..106]), Answer::NeedMore);
    }

    #[test]
    fn version_2_headers() {
        let v4 = [&[192, 0, 2, 1, 198, 51, 100, 7][..], &[0, 80, 1, 187]].concat();
        let v6 = [&Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets()[..], &[0; 16], &[0, 9, 1, 187]]
            .concat();
        let with_values = [&v4[..], &[4, 0x0f, 0xa0], &[0; 4000]].concat();
        check(&v2(0x21, 0x11, &v4), from(Some("192.0.2.1:80"), 28));
        check(&v2(0x21, 0x21, &v6), from(Some("[2001:db8::1]:9"), 52));
        check(&v2(0x21, 0x11, &with_values), from(Some("192.0.2.1:80"), 28 + 4003));
        check(&v2(0x20, 0x11, &v4), from(None, 28)); // LOCAL
        check(&v2(0x20, 0x00, &[]), from(None, 16));
        check(&v2(0x21, 0x00, &[1, 2, 3]), from(None, 19)); // UNSPEC
        check(&v2(0x21, 0x12, &v4), from(None, 28)); // a datagram
        check(&v2(0x21, 0x31, &[b'/'; 216]), from(None, 232)); // UNIX
    }

    #[test]
    fn bad_version_2_headers() {
        check(&v2(0x11, 0x11, &[0; 12]), Answer::Invalid("a PROXY header of an unknown version"));
        check(&v2(0x22, 0x11, &[0; 12]), Answer::Invalid("a PROXY header with an unknown command"));
        check(&v2(0x21, 0x11, &[0; 11]), Answer::Invalid("a PROXY header with unreadable addresses"));
        check(&v2(0x21, 0x41, &[0; 12]), Answer::Invalid("a PROXY header with unreadable addresses"));
        check(&v2(0x21, 0x11, &[0; 4081]), Answer::Invalid("a PROXY header over 4096 bytes"));
        assert!(matches!(read(&v2(0x21, 0x11, &[0; 4080])), Answer::Header { consumed: 4096, .. }));
    }

    #[test]
    fn other_bytes_are_no_header() {
        for bytes in [TLS, b"gAAAAA", b"PROXZ", b"\r\n\r\n\x01", b"GET / HTTP/1.1"] {
            check(bytes, Answer::None);
        }
        assert_eq!(read(b""), Answer::NeedMore);
        assert_eq!(read(b"PRO"), Answer::NeedMore);
    }

    #[test]
    fn mixed_families_are_written_as_ipv6() {
        let header = write_v2(address("192.0.2.1:7"), address("[::1]:8123"));
        assert_eq!(header.len(), 52);
        check(&header, from(Some("192.0.2.1:7"), 52));
        let header = write_v2(address("[::ffff:192.0.2.1]:7"), address("127.0.0.1:8123"));
        check(&header, from(Some("192.0.2.1:7"), 28));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(source: SocketAddr, destination: SocketAddr) {
            let header = write_v2(source, destination);
            let source = SocketAddr::new(source.ip().to_canonical(), source.port());
            prop_assert_eq!(read(&header), Answer::Header { source: Some(source), consumed: header.len() });
        }

        #[test]
        fn any_bytes_have_one_answer(kind in 0..3_usize, mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let prefix: &[u8] = [v2::PROTOCOL_PREFIX, b"PROXY TCP4 ", b""][kind];
            bytes.splice(..0, prefix.iter().copied());
            prop_assert_eq!(read_bytewise(&bytes), read(&bytes));
        }
    }
}
