//! Home Assistant answers 400 to every forwarded request until it is told to trust the agent. Nobody finds the
//! reason by looking at the page, so the log says which lines are missing.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Response, StatusCode};

use crate::target::Target;

/// Its body is `400: Bad Request`.
const LENGTH_OF_ITS_PAGE: &[u8] = b"16";

/// Watches answers to forwarded requests and speaks once.
#[derive(Debug, Default)]
pub struct TrustHint {
    told: AtomicBool,
}

impl TrustHint {
    /// Looks at an answer; the advice when it is the one, for the first time.
    pub fn look<B>(&self, response: &Response<B>, target: &Target) -> Option<String> {
        if response.status() != StatusCode::BAD_REQUEST || !looks_like_its_page(response) {
            return None;
        }
        (!self.told.swap(true, Ordering::Relaxed)).then(|| advice(target.seen_as()))
    }
}

fn looks_like_its_page<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let plain = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    plain && headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == LENGTH_OF_ITS_PAGE)
}

fn advice(seen_as: IpAddr) -> String {
    format!(
        "the instance answered 400 to a request with X-Forwarded-For. If it is Home Assistant, it does not trust this \
         agent yet: put these lines into its configuration.yaml and restart it (or run the agent with \
         --forwarded-headers off):\n\
         http:\n  use_x_forwarded_for: true\n  trusted_proxies:\n    - {seen_as}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, kind: &str, length: &str) -> Response<()> {
        let response =
            Response::builder().status(status).header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, length);
        response.body(()).unwrap()
    }

    #[tokio::test]
    async fn the_advice_comes_once_and_names_our_address() {
        let target = Target::resolve("127.0.0.1:1".parse().unwrap()).await;
        target.note_seen_as("172.30.32.1".parse().unwrap());
        let hint = TrustHint::default();
        assert!(hint.look(&response(200, "text/plain", "16"), &target).is_none());
        assert!(hint.look(&response(400, "application/json", "16"), &target).is_none());
        assert!(hint.look(&response(400, "text/plain", "17"), &target).is_none());
        let advice = hint.look(&response(400, "text/plain; charset=utf-8", "16"), &target).unwrap();
        assert!(advice.contains("use_x_forwarded_for: true"), "{advice}");
        assert!(advice.contains("trusted_proxies:\n    - 172.30.32.1"), "{advice}");
        assert!(hint.look(&response(400, "text/plain; charset=utf-8", "16"), &target).is_none());
    }
}
