//! What is this connection? The first bytes tell.

use std::net::SocketAddr;

use byte_relay::proxy_protocol;
use snitun::token::{self, Guess, MAX_TOKEN_LEN};

use super::client_hello::{self, ClientHello};

/// What the bytes gathered so far open.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "looked at where it is made, never kept")]
pub enum Opening<'a> {
    /// Too few to tell.
    NeedMore,
    /// A TLS connection whose hello is here.
    Tls(ClientHello<'a>),
    /// A tunnel: these bytes are its token, or the beginning of one.
    Token(&'a [u8]),
    /// Nothing this port speaks; why.
    Neither(&'static str),
}

/// The bytes after a PROXY header, and who the header says the peer is.
#[derive(Debug, PartialEq, Eq)]
pub enum Unwrapped<'a> {
    /// The header is not complete.
    NeedMore,
    /// What follows it; all, when there is none.
    Bytes {
        /// The connection's own bytes.
        own: &'a [u8],
        /// The real peer, if the header names one.
        source: Option<SocketAddr>,
    },
    /// A broken header; why.
    Invalid(&'static str),
}

/// Takes a PROXY header off. Ask only for peers that may be believed.
pub fn unwrap_proxy_header(bytes: &[u8]) -> Unwrapped<'_> {
    match proxy_protocol::read(bytes) {
        proxy_protocol::Answer::NeedMore => Unwrapped::NeedMore,
        proxy_protocol::Answer::None => Unwrapped::Bytes { own: bytes, source: None },
        proxy_protocol::Answer::Header { source, consumed } => {
            Unwrapped::Bytes { own: bytes.get(consumed..).unwrap_or_default(), source }
        }
        proxy_protocol::Answer::Invalid(why) => Unwrapped::Invalid(why),
    }
}

/// Tells a visitor from a tunnel.
pub fn classify(bytes: &[u8], hello_cap: usize) -> Opening<'_> {
    match bytes.first() {
        None => Opening::NeedMore,
        Some(&client_hello::FIRST_BYTE) => match client_hello::parse(bytes, hello_cap) {
            client_hello::Answer::NeedMore => Opening::NeedMore,
            client_hello::Answer::Hello(hello) => Opening::Tls(hello),
            client_hello::Answer::NotTls(why) => Opening::Neither(why),
        },
        Some(_) => match token::looks_like_token(bytes) {
            Guess::NeedMore => Opening::NeedMore,
            Guess::Token if bytes.len() > MAX_TOKEN_LEN => Opening::Neither("a token that is too long"),
            Guess::Token => Opening::Token(bytes),
            Guess::NotToken => Opening::Neither("neither TLS nor a tunnel's token"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells() {
        assert_eq!(classify(b"", 100), Opening::NeedMore);
        assert_eq!(classify(b"g", 100), Opening::NeedMore);
        assert_eq!(classify(b"gAAAA", 100), Opening::Token(b"gAAAA"));
        assert!(matches!(classify(b"GET / HTTP/1.1", 100), Opening::Neither(_)));
        assert!(matches!(classify(&vec![b'g'; 5000], 100), Opening::Neither(_)));
        assert_eq!(classify(&[0x16, 3, 1], 100), Opening::NeedMore);
    }

    #[test]
    fn a_header_in_front_is_taken_off() {
        let bytes = b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 443\r\n\x16\x03";
        let source = Some("203.0.113.7:5555".parse().unwrap());
        assert_eq!(unwrap_proxy_header(bytes), Unwrapped::Bytes { own: b"\x16\x03", source });
        assert_eq!(unwrap_proxy_header(b"PROXY TC"), Unwrapped::NeedMore);
        assert_eq!(unwrap_proxy_header(b"gAAA"), Unwrapped::Bytes { own: b"gAAA", source: None });
    }
}
