//! How the instance learns whose connection it is: a PROXY header in front of the bytes (passthrough), or the
//! X-Forwarded headers (terminate). What a visitor sends under these names is never believed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use byte_relay::proxy_protocol::write_v2;
use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

/// PROXY protocol 2, command LOCAL: "take the connection's own address".
const LOCAL: [u8; 16] =
    [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x20, 0, 0, 0];

/// A PROXY v2 header for a visitor on its way to `target`. The tunnel tells no port: it is 0.
pub fn proxy_header(visitor: Option<IpAddr>, target: Option<SocketAddr>) -> Vec<u8> {
    let Some(visitor) = visitor else { return LOCAL.to_vec() };
    let target = target.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
    write_v2(SocketAddr::new(visitor, 0), target)
}

/// Headers beside `X-Forwarded-*` that some program takes for the client's address.
const OTHERS: [&str; 6] =
    ["forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip"];

/// Removes everything by which a visitor could claim to be somebody else.
pub fn remove_claims(headers: &mut HeaderMap) {
    headers.remove(FORWARDED);
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Some servers read `X_Forwarded_For` as `X-Forwarded-For`.
fn is_claim(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-forwarded-") || OTHERS.contains(&name.as_str())
}

/// Sets the three headers, once each. An unknown address is told as 0.0.0.0: without the header the instance would
/// take the visitor for us, and may trust us.
pub fn set_forwarded(headers: &mut HeaderMap, visitor: Option<IpAddr>) {
    let visitor = visitor.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
    if let Ok(value) = HeaderValue::try_from(visitor.to_string()) {
        headers.insert("x-forwarded-for", value);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
}

#[cfg(test)]
mod tests {
    use byte_relay::proxy_protocol::{Answer, read};

    use super::*;

    #[test]
    fn the_proxy_header_names_the_visitor() {
        for (visitor, target) in [
            ("203.0.113.9", "127.0.0.1:8123"),
            ("2001:db8::1", "[::1]:8123"),
            ("2001:db8::1", "127.0.0.1:8123"),
        ] {
            let visitor: IpAddr = visitor.parse().unwrap();
            let header = proxy_header(Some(visitor), Some(target.parse().unwrap()));
            let consumed = header.len();
            let source = Some(SocketAddr::new(visitor, 0));
            assert_eq!(read(&header), Answer::Header { source, consumed });
        }
        let header = proxy_header(None, None);
        assert_eq!(read(&header), Answer::Header { source: None, consumed: 16 });
    }

    #[test]
    fn claims_are_dropped_in_every_spelling() {
        let mut headers = HeaderMap::new();
        for name in [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x_forwarded_for",
            "x-real-ip",
            "x_real_ip",
            "true-client-ip",
            "cf-connecting-ip",
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("127.0.0.1"));
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("127.0.0.2"));
        }
        headers.insert("x-forwarding", HeaderValue::from_static("mine"));
        remove_claims(&mut headers);
        assert_eq!(headers.len(), 1, "{headers:?}");
    }

    #[test]
    fn each_is_set_once() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a.example.com"));
        set_forwarded(&mut headers, Some("::ffff:203.0.113.9".parse().unwrap()));
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "a.example.com");
        set_forwarded(&mut headers, None);
        assert_eq!(headers["x-forwarded-for"], "0.0.0.0");
        assert_eq!(headers.len(), 4);
    }
}
