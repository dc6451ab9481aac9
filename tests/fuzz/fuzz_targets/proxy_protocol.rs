//! PROXY headers: the same answer however they arrive, that of the `ppp` crate where it has one, and
//! what is written reads the same.
//!
//! Lawful differences: `ppp` knows no limit of 4 KiB; it reads `+80` as a port; it wants at most six
//! words in a line of version 1 even after UNKNOWN, where the specification says to pass over them all; and
//! it takes a line feed within a line, which ends the line here, and wrongly.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use byte_relay::proxy_protocol::{Answer, MAX_HEADER, read, write_v2};
use libfuzzer_sys::fuzz_target;
use ppp::{HeaderResult, v1, v2};

fuzz_target!(|bytes: &[u8]| {
    let answer = read(bytes);
    for length in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
        let earlier = read(&bytes[..length]);
        assert!(earlier == Answer::NeedMore || earlier == answer, "{length}: {earlier:?}, then {answer:?}");
    }
    match (HeaderResult::parse(bytes), answer) {
        (_, Answer::NeedMore) => assert!(bytes.len() < MAX_HEADER),
        (HeaderResult::V2(Ok(header)), answer) if header.len() <= MAX_HEADER => {
            let stream = header.command == v2::Command::Proxy && header.protocol == v2::Protocol::Stream;
            let source = match header.addresses {
                v2::Addresses::IPv4(a) if stream => address(a.source_address, a.source_port),
                v2::Addresses::IPv6(a) if stream => address(a.source_address, a.source_port),
                _ => None,
            };
            assert_eq!(answer, Answer::Header { source, consumed: header.len() });
        }
        (HeaderResult::V1(Ok(header)), answer)
            if !header.header.trim_end_matches("\r\n").contains(['+', '\n']) =>
        {
            let source = match header.addresses {
                v1::Addresses::Tcp4(a) => address(a.source_address, a.source_port),
                v1::Addresses::Tcp6(a) => address(a.source_address, a.source_port),
                v1::Addresses::Unknown => None,
            };
            assert_eq!(answer, Answer::Header { source, consumed: header.header.len() });
        }
        (HeaderResult::V1(Err(_)), Answer::Header { source, consumed }) => {
            assert!(source.is_none() && bytes[..consumed].starts_with(b"PROXY UNKNOWN"));
        }
        (HeaderResult::V2(Err(_)), Answer::Header { .. }) => panic!("read what ppp does not: {answer:?}"),
        _ => {}
    }
    if let Answer::Header { source: Some(source), .. } = answer {
        let written = write_v2(source, SocketAddr::from(([127, 0, 0, 1], 8123)));
        assert_eq!(read(&written), Answer::Header { source: Some(source), consumed: written.len() });
    }
});

fn address(ip: impl Into<IpAddr>, port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(ip.into().to_canonical(), port))
}
