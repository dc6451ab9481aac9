//! Problem documents (RFC 9457): why the session API says no, and what to do about it.

use std::time::Duration;

use http::StatusCode;
use policy::BlockedBy;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// What kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The body is not what the endpoint takes.
    BadRequest,
    /// No client certificate was shown.
    NoCertificate,
    /// The shown key is in no route.
    UnknownKey,
    /// Remote access is off.
    Disabled,
    /// The route says what this build does not know.
    NotUnderstood,
    /// A version block is in force.
    Blocked,
    /// The version cannot be told, and that is not allowed.
    UnknownVersion,
    /// No such page.
    NotFound,
    /// No such method here.
    MethodNotAllowed,
    /// The body took too long.
    Timeout,
    /// The body is too long.
    TooLarge,
    /// Well formed, but not to be had.
    Unprocessable,
    /// Too often.
    TooManyRequests,
    /// An error of ours.
    Internal,
    /// Not part of this set-up.
    NotImplemented,
    /// Not at this moment.
    Unavailable,
}

impl ProblemKind {
    const fn facts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "bad-request", "The request cannot be read"),
            Self::NoCertificate => (401, "no-certificate", "No client certificate"),
            Self::UnknownKey => (401, "unknown-key", "Unknown key"),
            Self::Disabled => (403, "disabled", "Remote access is disabled"),
            Self::NotUnderstood => (403, "not-understood", "The route cannot be served by this version"),
            Self::Blocked => (409, "blocked", "This version is blocked"),
            Self::UnknownVersion => (409, "unknown-version", "A version that cannot be told is not allowed"),
            Self::NotFound => (404, "not-found", "No such endpoint"),
            Self::MethodNotAllowed => (405, "method-not-allowed", "No such method here"),
            Self::Timeout => (408, "timeout", "The request took too long"),
            Self::TooLarge => (413, "too-large", "The request is too long"),
            Self::Unprocessable => (422, "unprocessable", "This cannot be had"),
            Self::TooManyRequests => (429, "too-many-requests", "Too many requests"),
            Self::Internal => (500, "internal", "An error of the proxy"),
            Self::NotImplemented => (501, "not-implemented", "Not available here"),
            Self::Unavailable => (503, "unavailable", "Not available at this moment"),
        }
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Why the session API says no.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// What is wrong here, and what to do about it.
    pub detail: String,
    /// The member of the body that is wrong, as a JSON pointer.
    pub pointer: Option<Box<str>>,
    /// The instance, once a key has shown which.
    pub instance: Option<Box<str>>,
    /// The version blocks in force.
    pub blocks: Vec<BlockedBy>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
    /// The methods there are.
    pub allow: Option<&'static str>,
}

impl Problem {
    /// A problem with nothing but words.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            pointer: None,
            instance: None,
            blocks: Vec::new(),
            retry_after: None,
            allow: None,
        }
    }

    /// The body's member `name` is wrong.
    pub fn member(kind: ProblemKind, name: &str, detail: &str) -> Self {
        // RFC 6901 escapes.
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        Self { pointer: Some(pointer.into()), ..Self::new(kind, format!("{name:?} {detail}")) }
    }

    /// The problem as it is sent.
    pub fn document(&self, server_time: u64) -> Document<'_> {
        Document { problem: self, server_time }
    }
}

/// A problem with the time at which it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    problem: &'a Problem,
    server_time: u64,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Problem { kind, detail, pointer, instance, blocks, retry_after, allow: _ } = self.problem;
        let (status, slug, title) = kind.facts();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format!("https://latchkey.dev/problems/{slug}"))?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("status", &status)?;
        map.serialize_entry("detail", detail)?;
        if let Some(pointer) = pointer {
            map.serialize_entry("pointer", pointer)?;
        }
        if let Some(instance) = instance {
            map.serialize_entry("latchkeyInstance", instance)?;
        }
        if !blocks.is_empty() {
            map.serialize_entry("blocks", blocks)?;
        }
        if let Some(after) = retry_after {
            map.serialize_entry("retryAfter", &whole_seconds(*after))?;
        }
        map.serialize_entry("serverTime", &self.server_time)?;
        map.end()
    }
}

/// For `Retry-After`: rounded up, so that whoever obeys is not early.
pub(super) fn whole_seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_the_members_of_rfc_9457_and_ours() {
        let block = BlockedBy {
            name: "core-2021-1-4".into(),
            reason: "Traversal".into(),
            more_info: Some("https://x".into()),
        };
        let problem = Problem {
            instance: Some("homes/lake".into()),
            blocks: vec![block],
            retry_after: Some(Duration::from_millis(1200)),
            ..Problem::member(ProblemKind::Blocked, "a/b", "is old")
        };
        let document = serde_json::to_value(problem.document(17)).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "type": "https://latchkey.dev/problems/blocked", "title": "This version is blocked", "status": 409,
                "detail": "\"a/b\" is old", "pointer": "/a~1b", "latchkeyInstance": "homes/lake",
                "blocks": [{"name": "core-2021-1-4", "reason": "Traversal", "moreInfo": "https://x"}],
                "retryAfter": 2, "serverTime": 17
            })
        );
        assert_eq!(problem.kind.status(), StatusCode::CONFLICT);
    }
}
