//! Which host a request asks for, and whether that is one of ours.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request};

use super::pages::Page;

/// The host a request asks for. HTTP/2 says it in `:authority`, HTTP/1.1 in the target or in exactly one `Host`.
pub fn of<B>(request: &Request<B>) -> Result<Authority, Page> {
    if let Some(authority) = request.uri().authority() {
        return without_user(authority.clone());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Page::BadRequest) };
    Authority::try_from(host.as_bytes()).map_err(|_| Page::BadRequest).and_then(without_user)
}

fn without_user(authority: Authority) -> Result<Authority, Page> {
    if authority.as_str().contains('@') { Err(Page::BadRequest) } else { Ok(authority) }
}

/// Do we serve that host? Ours are the instance's hostnames, and the name the TLS connection was opened for.
pub fn is_ours(authority: &Authority, sni: Option<&str>, hostnames: &[String]) -> bool {
    let host = authority.host().strip_suffix('.').unwrap_or(authority.host());
    let same = |name: &str| name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(host);
    sni.is_some_and(same) || hostnames.iter().any(|name| same(name))
}

/// As the value of a `Host` header.
pub fn header(authority: &Authority) -> Result<HeaderValue, Page> {
    HeaderValue::try_from(authority.as_str()).map_err(|_| Page::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn the_authority_is_found() {
        assert_eq!(of(&request("/", &["a.x:443"])).unwrap().host(), "a.x");
        assert_eq!(of(&request("https://b.x/", &["a.x"])).unwrap().host(), "b.x", "the target comes first");
        for (uri, hosts) in
            [("/", &[][..]), ("/", &["a.x", "a.x"]), ("/", &["a b"]), ("/", &["u@a.x"]), ("/", &[""])]
        {
            assert_eq!(of(&request(uri, hosts)).unwrap_err(), Page::BadRequest, "{uri} {hosts:?}");
        }
    }

    #[test]
    fn ours_are_hostnames_and_the_connections_name() {
        let hostnames = ["home.example.com".to_owned(), "own.example.org".to_owned()];
        for (authority, sni, ours) in [
            ("home.example.com", Some("home.example.com"), true),
            ("HOME.example.com.:443", Some("other.example.com"), true),
            ("own.example.org", Some("home.example.com"), true),
            ("new.example.com", Some("New.example.com"), true),
            ("evil.example.com", Some("home.example.com"), false),
            ("evil.example.com", None, false),
            ("127.0.0.1:8123", Some("home.example.com"), false),
        ] {
            let authority: Authority = authority.parse().unwrap();
            assert_eq!(is_ours(&authority, sni, &hostnames), ours, "{authority} {sni:?}");
        }
    }
}
