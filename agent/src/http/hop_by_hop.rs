//! Headers that speak of one connection alone, and end with it.

use http::header::{
    CONNECTION, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Removes them from a request: those it names itself as well. `Expect` is answered by us.
pub fn remove_from_request(headers: &mut HeaderMap) {
    remove(headers);
    headers.remove(EXPECT);
    headers.remove(PROXY_AUTHORIZATION);
}

/// Removes them from a response.
pub fn remove_from_response(headers: &mut HeaderMap) {
    remove(headers);
    headers.remove(PROXY_AUTHENTICATE);
}

fn remove(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        connection_tokens(headers).filter_map(|name| HeaderName::try_from(name).ok()).collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// The protocol a request or a response switches to, such as `websocket`. HTTP/2 over clear text is none of those:
/// it would carry requests past us.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(UPGRADE).filter(|_| asked)?;
    let text = protocol.to_str().ok()?;
    let http = text.split(',').any(|one| {
        let one = one.trim().to_ascii_lowercase();
        one.starts_with("h2c") || one.starts_with("http/")
    });
    (!http).then(|| protocol.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn what_speaks_of_the_connection_is_removed() {
        let mut headers = headers(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("cookie", "a=b"),
        ]);
        remove_from_request(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["cookie"]);
    }

    #[test]
    fn an_upgrade_must_be_named_twice_and_must_not_be_http() {
        let asks = |connection, protocol| {
            upgrade(&headers(&[("connection", connection), ("upgrade", protocol)])).is_some()
        };
        assert!(asks("keep-alive, Upgrade", "websocket"));
        assert!(!asks("keep-alive", "websocket"));
        assert!(!asks("upgrade", "h2c"));
        assert!(!asks("upgrade", "websocket, h2c"));
        assert!(!asks("upgrade", "HTTP/2.0"));
    }
}
