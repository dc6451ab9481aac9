//! Answers. None of them is to be kept: what they tell is of this moment.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// A text for people and probes.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, "text/plain; charset=utf-8", body)
}

/// A document for programs.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => respond(status, "application/json", body),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written\n"),
    }
}

/// A document that is written already.
pub fn json_text(body: String) -> Answer {
    respond(StatusCode::OK, "application/json", body)
}

/// Figures, in the format that `OpenMetrics` describes.
pub fn open_metrics(body: String) -> Answer {
    respond(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body)
}

/// Anything.
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
