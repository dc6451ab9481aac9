//! `POST /v1/session`: a session for an agent of ours, with key material chosen here.

use std::{net::IpAddr, time::Duration};

use policy::{Admission, MAX_VERSION_LENGTH, Product, ReportedVersion};
use route_table::{Fingerprint, Route, RouteRefusal, RouteTable};
use serde::Serialize;
use snitun::{
    cipher::{AesIv, AesKey, CipherKind},
    random::Random,
    token::{FernetKeys, LatchkeyClaims, MAX_ALIASES, Token, TokenError},
    version::ProtocolVersion,
};

use super::{
    Problem, ProblemKind,
    request::{Members, wrong},
};

/// The longest lifetime a token may be given, whatever the setting says.
const MAX_LIFETIME: Duration = Duration::from_hours(7 * 24);
/// The longest text in a request, unless something shorter is said.
const MAX_TEXT: usize = 256;

/// What an agent asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRequest {
    /// The product version of the instance, as found there.
    pub version: Option<String>,
    /// What the instance runs.
    pub product: Option<Product>,
    /// The agent's own version.
    pub agent_version: String,
    /// The highest protocol version it speaks.
    pub protocol_version: ProtocolVersion,
    /// The cipher it would like.
    pub cipher: CipherKind,
    /// What visitors are shown.
    pub certificate: Option<CertificateFacts>,
}

/// The certificate that an instance shows its visitors, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the certificate.
    pub fingerprint_sha256: Fingerprint,
    /// The names it is for.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: Option<String>,
    /// When it expires, as the agent wrote it (RFC 3339).
    pub not_after: Option<String>,
}

/// Reads the body of `POST /v1/session`. Members that are not known are passed over: the agent may be newer.
pub fn parse_session_request(body: &[u8]) -> Result<SessionRequest, Problem> {
    let mut members = Members::parse(body)?;
    Ok(SessionRequest {
        version: version(&mut members)?,
        product: product(&mut members)?,
        agent_version: members.required_text("agentVersion", 64)?,
        protocol_version: ProtocolVersion::from_number(
            members.required_number("protocolVersion", u64::from(u16::MAX))?,
        ),
        cipher: cipher("cipher", &members.required_text("cipher", 32)?)?,
        certificate: members.object("certificate")?.map(certificate).transpose()?,
    })
}

/// The version as reported. One that is too long is not refused: it counts as one that cannot be read.
pub(super) fn version(members: &mut Members) -> Result<Option<String>, Problem> {
    members.text("version", MAX_TEXT)
}

fn product(members: &mut Members) -> Result<Option<Product>, Problem> {
    let Some(text) = members.text("product", MAX_TEXT)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error: policy::ProductError| wrong("product", &error.to_string()))
}

pub(super) fn cipher(name: &str, text: &str) -> Result<CipherKind, Problem> {
    text.parse().map_err(|_| {
        Problem::member(
            ProblemKind::Unprocessable,
            name,
            "names no cipher known here: there are aes-cbc, aes-gcm and aes-gcm-siv",
        )
    })
}

fn certificate(mut members: Members) -> Result<CertificateFacts, Problem> {
    let fingerprint = members.required_text("fingerprintSha256", 128)?;
    Ok(CertificateFacts {
        fingerprint_sha256: fingerprint
            .parse()
            .map_err(|_| wrong("fingerprintSha256", "has to be a SHA-256: 64 hex digits"))?,
        names: members.texts("names", 100, 253)?,
        issuer: members.text("issuer", 1024)?,
        not_after: members.text("notAfter", 64)?,
    })
}

/// How long tokens last, and where they lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTerms {
    /// For how long a token opens tunnels; a week at most.
    pub lifetime: Duration,
    /// `host:port` for the tunnel when it is not the address the session API was reached at.
    pub server: Option<String>,
}

impl Default for TokenTerms {
    fn default() -> Self {
        Self { lifetime: Duration::from_hours(24), server: None }
    }
}

impl TokenTerms {
    pub(super) fn valid_until(&self, now_unix: u64) -> u64 {
        now_unix.saturating_add(self.lifetime.min(MAX_LIFETIME).as_secs().max(1))
    }
}

/// A session that was granted, before its token is sealed.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Of which instance.
    pub route: Route,
    /// The token.
    pub token: Token,
    /// The session's id, for logs.
    pub session: String,
    /// Until when the token opens tunnels, in Unix seconds.
    pub valid_until: u64,
    /// Findings that only warn.
    pub warned_by: Vec<policy::BlockedBy>,
}

impl Grant {
    /// Seals the token.
    pub fn seal(
        &self,
        keys: &FernetKeys,
        now_unix: u64,
        random: &mut impl Random,
    ) -> Result<String, TokenError> {
        match self.token.seal(keys, now_unix, random.array()) {
            // The instance counts, not the names: aliases are for people who look into a token.
            Err(TokenError::TooLong) => {
                let token = Token { alias: Vec::new(), ..self.token.clone() };
                token.seal(keys, now_unix, random.array())
            }
            sealed => sealed,
        }
    }
}

/// Decides whether the agent that proved `key` gets a session. Pure: the table, the request, the time and the
/// random bytes are all it knows.
pub fn decide_session(
    table: &RouteTable,
    key: Option<&Fingerprint>,
    request: &SessionRequest,
    terms: &TokenTerms,
    now_unix: u64,
    random: &mut impl Random,
) -> Result<Grant, Problem> {
    let (route, key) = route_of(table, key)?;
    let warned_by = admit(route, request.version.as_deref(), request.product.as_ref())?;
    let material = KeyMaterial {
        aes_key: AesKey(random.array()),
        aes_iv: AesIv(random.array()),
        cipher: request.cipher,
    };
    let agent = &request.agent_version;
    grant(
        route,
        key,
        agent,
        request.version.as_deref(),
        request.protocol_version,
        material,
        terms,
        now_unix,
        random,
    )
    .map(|granted| Grant { warned_by, ..granted })
}

/// Finds the route of a key, like a line of `authorized_keys`.
pub(super) fn route_of<'a>(
    table: &'a RouteTable,
    key: Option<&'a Fingerprint>,
) -> Result<(&'a Route, &'a Fingerprint), Problem> {
    let Some(key) = key else {
        return Err(Problem::new(
            ProblemKind::NoCertificate,
            "no client certificate was shown: connect with a self-signed one; the SHA-256 of its public key has to \
             be in agentKeys of the instance (latchkey-agent key prints it)",
        ));
    };
    let Some(route) = table.by_agent_key(key) else {
        return Err(Problem::new(
            ProblemKind::UnknownKey,
            format!("no instance lists this key: add {key} to agentKeys of the instance it belongs to"),
        ));
    };
    // Raising the generation of a route shuts out the keys of earlier ones, also where they are still listed.
    let current =
        |listed: &route_table::AgentKey| listed.fingerprint == *key && listed.generation == route.generation;
    if !route.agent_keys.iter().any(current) {
        return Err(Problem::new(
            ProblemKind::UnknownKey,
            format!(
                "the key {key} belongs to an earlier generation of {} (now {}): join again, or list it anew",
                route.id, route.generation
            ),
        ));
    }
    Ok((route, key))
}

/// May this instance, in this version, be reached? Otherwise why not.
pub(super) fn admit(
    route: &Route,
    version: Option<&str>,
    product: Option<&Product>,
) -> Result<Vec<policy::BlockedBy>, Problem> {
    decide_admission(route, version, product)
        .map_err(|problem| Problem { instance: Some(route.id.as_str().into()), ..problem })
}

fn decide_admission(
    route: &Route,
    version: Option<&str>,
    product: Option<&Product>,
) -> Result<Vec<policy::BlockedBy>, Problem> {
    match route.refusal() {
        Some(RouteRefusal::Disabled) => {
            return Err(Problem::new(
                ProblemKind::Disabled,
                format!("remote access of {} is off: set enabled: true to turn it on", route.id),
            ));
        }
        Some(refusal @ RouteRefusal::NotUnderstood(_)) => {
            return Err(Problem::new(ProblemKind::NotUnderstood, format!("{refusal}; update the proxy")));
        }
        None => {}
    }
    // A version read as that of another product could slip past a block.
    if let Some(product) = product.filter(|product| **product != route.product) {
        return Err(Problem::member(
            ProblemKind::Unprocessable,
            "product",
            &format!(
                "is {:?}, but {} is declared to run {:?}: correct one of the two",
                product.as_str(),
                route.id,
                route.product.as_str()
            ),
        ));
    }
    let reported = version.map(|text| ReportedVersion::read(text, route.product.scheme()));
    match route.admit(reported.as_ref()) {
        Admission::Admitted { warned_by, accepted: _ } => Ok(warned_by),
        Admission::Refused { blocked_by } => {
            let names: Vec<&str> = blocked_by.iter().map(|block| block.name.as_str()).collect();
            let detail = format!(
                "remote access of {} is blocked by {}: update it, or accept the block by name in acceptedBlocks",
                route.id,
                names.join(", ")
            );
            Err(Problem { blocks: blocked_by, ..Problem::new(ProblemKind::Blocked, detail) })
        }
        Admission::RefusedUnknown { text } => {
            let what = text.map_or_else(
                || "no version was reported".to_owned(),
                |text| format!("the version {text:?} cannot be read"),
            );
            let detail = format!(
                "{what}, and {} may only be reached in a version that is known: have the agent report it",
                route.id
            );
            Err(Problem::new(ProblemKind::UnknownVersion, detail))
        }
    }
}

/// What encrypts a session.
pub(super) struct KeyMaterial {
    pub(super) aes_key: AesKey,
    pub(super) aes_iv: AesIv,
    pub(super) cipher: CipherKind,
}

#[expect(clippy::too_many_arguments, reason = "the last step of two decisions, each a fact of the token")]
pub(super) fn grant(
    route: &Route,
    key: &Fingerprint,
    agent: &str,
    version: Option<&str>,
    protocol_version: ProtocolVersion,
    material: KeyMaterial,
    terms: &TokenTerms,
    now_unix: u64,
    random: &mut impl Random,
) -> Result<Grant, Problem> {
    let Some((hostname, aliases)) = route.hostnames.split_first() else {
        return Err(Problem {
            instance: Some(route.id.as_str().into()),
            retry_after: Some(Duration::from_secs(30)),
            ..Problem::new(
                ProblemKind::Unavailable,
                format!("{} has no hostname yet: ask again later", route.id),
            )
        });
    };
    let valid_until = terms.valid_until(now_unix);
    let session = hex(&random.array::<16>());
    let extra = LatchkeyClaims {
        instance: route.id.to_string(),
        generation: route.generation,
        version: version.unwrap_or_default().chars().take(MAX_VERSION_LENGTH).collect(),
        agent: agent.to_owned(),
        key: key.to_string(),
        session: session.clone(),
    };
    #[expect(clippy::cast_precision_loss, reason = "Unix seconds fit a double for ages to come")]
    let token = Token {
        valid: valid_until as f64,
        hostname: hostname.to_string(),
        aes_key: material.aes_key,
        aes_iv: material.aes_iv,
        protocol_version,
        cipher: material.cipher,
        alias: aliases.iter().take(MAX_ALIASES).map(ToString::to_string).collect(),
        extra: Some(extra),
    };
    Ok(Grant { route: route.clone(), token, session, valid_until, warned_by: Vec::new() })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The answer of `POST /v1/session`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionReply<'a> {
    pub(super) token: &'a str,
    pub(super) aes_key: &'a str,
    pub(super) aes_iv: &'a str,
    pub(super) protocol_version: ProtocolVersion,
    pub(super) cipher: CipherKind,
    pub(super) server: Option<&'a str>,
    pub(super) hostnames: Vec<&'a str>,
    pub(super) valid_until: u64,
    pub(super) session: &'a str,
    pub(super) instance: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) warnings: &'a [policy::BlockedBy],
    /// The CA that will sign the session API's certificate next, so that agents know it before it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_ca: Option<&'a str>,
    pub(super) server_time: u64,
}

/// What an agent said about its instance when it asked, whether or not it got a session.
#[derive(Clone, Debug)]
pub struct Report {
    /// The instance's route.
    pub route: Route,
    /// The key the agent proved.
    pub key: Fingerprint,
    /// Where it asked from.
    pub peer: IpAddr,
    /// The product version it reported.
    pub version: Option<String>,
    /// The agent's own version; none for stock clients.
    pub agent_version: Option<String>,
    /// What visitors are shown.
    pub certificate: Option<CertificateFacts>,
    /// The session it got; none when it was refused.
    pub session: Option<String>,
}

/// Where reports go.
pub trait Reports: Send + Sync + 'static {
    /// Called for every request of a known key. Must not block.
    fn reported(&self, report: Report);
}

/// Forgets them.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReports;

impl Reports for NoReports {
    fn reported(&self, _report: Report) {}
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
