//! The session API: HTTPS on `connect.<domain>`, on the proxy's one port.
//!
//! Agents prove a key by TLS client authentication and get the token that opens their tunnel. What is decided
//! ([`decide_session`], [`decide_issue`]) is apart from how it is carried ([`SessionApi`]).

mod comeback;
mod desk;
mod endpoints;
mod enrol;
mod heard;
mod issue;
mod limiter;
mod problem;
mod request;
mod rewound;
mod server;
mod session;
mod tls;

pub use desk::{Desk, DeskParts};
pub use enrol::{EnrolFuture, EnrolRequest, Enrolled, Enrolment, NoEnrolment, parse_enrol_request};
pub use heard::Heard;
pub use issue::{IssueRequest, decide_issue, parse_issue_request};
pub use limiter::{Allowance, Limiter};
pub use problem::{Problem, ProblemKind};
pub use rewound::Rewound;
pub use server::{SessionApi, SessionApiSettings, TableSource};
pub use session::{
    CertificateFacts, Grant, NoReports, Report, Reports, SessionRequest, TokenTerms, decide_session,
    parse_session_request,
};
pub use tls::{ApiIdentity, ApiTlsError, IDENTITY_WATCH_EVERY, client_key};

/// The longest body of a request.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
