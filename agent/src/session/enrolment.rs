//! Registering our key by the bundle's join token.

use serde::Serialize;
use zeroize::Zeroizing;

use super::SessionError;
use super::client::ApiClient;
use super::problem::Problem;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    join_token: &'a str,
    public_key_sha256: &'a str,
}

/// The answer.
#[derive(Debug)]
pub enum Enrolled {
    /// Our key is registered.
    Yes,
    /// It is not, and asking again with this token is of no use.
    No(Problem),
}

/// Sends our public key's hash with the join token.
pub async fn enrol(
    client: &ApiClient,
    join_token: &Zeroizing<String>,
    public_key_sha256: &str,
) -> Result<Enrolled, SessionError> {
    let reply = client.post("/v1/enrol", &Request { join_token, public_key_sha256 }).await?;
    match reply.status {
        200..=299 => Ok(Enrolled::Yes),
        // 501: this proxy enrols nobody; its words say how keys get in instead.
        400..=428 | 430..=499 | 501 => Ok(Enrolled::No(Problem::read(reply.status, &reply.body))),
        status => {
            let problem = Problem::read(status, &reply.body);
            Err(SessionError::Unreachable(format!("enrolment was answered {problem}")))
        }
    }
}
