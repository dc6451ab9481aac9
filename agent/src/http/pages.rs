//! What a visitor reads when we answer instead of the instance: what is wrong, and what to do.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

/// Something we answer ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The request makes no sense to us.
    BadRequest,
    /// Its authority is not one of ours.
    Misdirected,
    /// The instance cannot be reached, or broke off.
    NoAnswer,
    /// The instance takes too long.
    TooSlow,
    /// Too many requests are under way.
    Busy,
    /// CONNECT is for proxies.
    NotAProxy,
}

impl Page {
    /// Its status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoAnswer => StatusCode::BAD_GATEWAY,
            Self::TooSlow => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotAProxy => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::BadRequest => "400: The request names no host, or more than one.\n",
            Self::Misdirected => {
                "421: This instance does not serve the host that was asked for.\n\
                 Check the address. If the instance is yours and the address is right: give the name to its agent.\n"
            }
            Self::NoAnswer => {
                "502: The instance behind this address does not answer.\n\
                 It may be starting: try again in a minute. If it is yours: check that it runs and that the agent's \
                 --target is where it listens; the agent's log names the error.\n"
            }
            Self::TooSlow => {
                "504: The instance behind this address took too long to answer.\n\
                 Try again later. If it is yours: look at its load; the agent's --response-timeout is how long it may take.\n"
            }
            Self::Busy => {
                "503: Too many requests are under way.\n\
                 Try again in a moment. If the instance is yours: the agent's --max-requests is the limit.\n"
            }
            Self::NotAProxy => "405: CONNECT is not served here.\n",
        }
    }

    /// As a response.
    pub fn response<B: From<Bytes>>(self) -> Response<B> {
        let mut response = Response::new(B::from(Bytes::from_static(self.text().as_bytes())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self == Self::Busy {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
