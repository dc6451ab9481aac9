//! Problem documents (RFC 9457), as the session API answers with when it says no.

use std::fmt;

use serde::Deserialize;

/// Why the session API said no, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Problem {
    /// The HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// What kind of problem.
    pub title: Option<String>,
    /// What is wrong here, and what to do.
    pub detail: Option<String>,
    /// The blocks our version matches.
    pub blocks: Vec<Block>,
}

/// A block our version matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Block {
    /// Its name: what somebody who takes the risk accepts.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Where to read on.
    pub more_info: Option<String>,
}

impl Problem {
    /// Reads an answer's body; one that is no problem document leaves the status alone to tell.
    pub fn read(status: u16, body: &[u8]) -> Self {
        Self { status, ..serde_json::from_slice(body).unwrap_or_default() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match (&self.title, &self.detail) {
            (Some(title), Some(detail)) => write!(f, " {title}: {detail}")?,
            (Some(text), None) | (None, Some(text)) => write!(f, " {text}")?,
            (None, None) => {}
        }
        for block in &self.blocks {
            write!(f, "; blocked by {}: {}", block.name, block.reason)?;
            if let Some(link) = &block.more_info {
                write!(f, " ({link})")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_tells_its_blocks() {
        let body = br#"{"type":"about:blank","title":"Blocked","status":409,"detail":"Update it.",
            "blocks":[{"name":"core-2021-1-4","reason":"Directory traversal","moreInfo":"https://example.com"}]}"#;
        let told = Problem::read(409, body).to_string();
        assert_eq!(
            told,
            "409 Blocked: Update it.; blocked by core-2021-1-4: Directory traversal (https://example.com)"
        );
    }

    #[test]
    fn anything_else_is_told_by_its_status() {
        assert_eq!(Problem::read(502, b"<html>").to_string(), "502");
        assert_eq!(Problem::read(401, br#"{"title":"Unknown key"}"#).to_string(), "401 Unknown key");
    }
}
