//! `POST /v1/enrol`: registers an agent's key with a join token, where an operator keeps the table.

use std::{fmt, future::Future, pin::Pin};

use route_table::Fingerprint;
use zeroize::Zeroizing;

use super::{
    Problem, ProblemKind,
    request::{Members, wrong},
};

/// What an agent asks for.
pub struct EnrolRequest {
    /// The token out of the join bundle.
    pub join_token: Zeroizing<String>,
    /// The key to register: SHA-256 of its `SubjectPublicKeyInfo`.
    pub public_key: Fingerprint,
    /// Did the client prove that it holds this key, by TLS client authentication?
    pub proved: bool,
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

/// The key is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// For which instance, as `namespace/name`.
    pub instance: String,
}

/// The answer, later.
pub type EnrolFuture<'a> = Pin<Box<dyn Future<Output = Result<Enrolled, Problem>> + Send + 'a>>;

/// Who registers keys.
pub trait Enrolment: Send + Sync + 'static {
    /// Registers a key, or says why not.
    fn enrol(&self, request: EnrolRequest) -> EnrolFuture<'_>;
}

/// Where the table is a file, nobody registers keys but the one who writes the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEnrolment;

impl Enrolment for NoEnrolment {
    fn enrol(&self, request: EnrolRequest) -> EnrolFuture<'_> {
        Box::pin(async move {
            Err(Problem::new(
                ProblemKind::NotImplemented,
                format!(
                    "keys are not registered by token here: add {} to agentKeys of the instance in the routes file",
                    request.public_key
                ),
            ))
        })
    }
}

/// Reads the body of `POST /v1/enrol`; `key` is the one proved by TLS, if any.
pub fn parse_enrol_request(body: &[u8], key: Option<&Fingerprint>) -> Result<EnrolRequest, Problem> {
    let mut members = Members::parse(body)?;
    let join_token = Zeroizing::new(members.required_text("joinToken", 1024)?);
    if join_token.is_empty() {
        return Err(wrong("joinToken", "is empty"));
    }
    let public_key: Fingerprint = members
        .required_text("publicKeySha256", 128)?
        .parse()
        .map_err(|_| wrong("publicKeySha256", "has to be a SHA-256: 64 hex digits"))?;
    if key.is_some_and(|key| *key != public_key) {
        return Err(wrong(
            "publicKeySha256",
            "is not that of the client certificate shown on this connection",
        ));
    }
    Ok(EnrolRequest { join_token, public_key, proved: key.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_not_proved_cannot_pass_for_one_that_was() {
        let body = format!(r#"{{"joinToken": "secret", "publicKeySha256": "{}"}}"#, "ab".repeat(32));
        let key = Fingerprint::from_bytes([0xab; 32]);
        assert!(parse_enrol_request(body.as_bytes(), Some(&key)).unwrap().proved);
        let unproved = parse_enrol_request(body.as_bytes(), None).unwrap();
        assert!(!unproved.proved);
        assert!(!format!("{unproved:?}").contains("secret"));
        let other = Fingerprint::from_bytes([1; 32]);
        let problem = parse_enrol_request(body.as_bytes(), Some(&other)).unwrap_err();
        assert_eq!(problem.pointer.as_deref(), Some("/publicKeySha256"));
        for bad in [r#"{"publicKeySha256": "ab"}"#, r#"{"joinToken": "x", "publicKeySha256": "ab"}"#] {
            assert_eq!(parse_enrol_request(bad.as_bytes(), None).unwrap_err().kind.status(), 400, "{bad}");
        }
    }
}
