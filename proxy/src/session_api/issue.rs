//! `POST /v1/issue`: a token for a stock client, which chooses its own key material.

use policy::BlockedBy;
use route_table::{Fingerprint, RouteTable};
use serde::Serialize;
use snitun::{
    cipher::{AesIv, AesKey, CipherKind},
    random::Random,
    version::ProtocolVersion,
};
use zeroize::Zeroizing;

use super::{
    Grant, Problem, ProblemKind, TokenTerms,
    request::{Members, wrong},
    session::{KeyMaterial, admit, cipher, grant, route_of, version},
};

/// What a stock client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueRequest {
    /// The session's key.
    pub aes_key: AesKey,
    /// The session's initial vector.
    pub aes_iv: AesIv,
    /// The version its library is started with.
    pub protocol_version: ProtocolVersion,
    /// The product version of the instance.
    pub version: Option<String>,
    /// The cipher it is started with.
    pub cipher: CipherKind,
}

/// Reads the body of `POST /v1/issue`. Strict: a misspelt member would be a default that breaks the tunnel later.
pub fn parse_issue_request(body: &[u8]) -> Result<IssueRequest, Problem> {
    let mut members = Members::parse(body)?;
    let aes_key = Zeroizing::new(members.required_text("aes_key", 128)?);
    let aes_iv = Zeroizing::new(members.required_text("aes_iv", 128)?);
    let request = IssueRequest {
        aes_key: AesKey::from_hex(&aes_key)
            .ok_or_else(|| wrong("aes_key", "has to be 32 random bytes in hex: 64 digits"))?,
        aes_iv: AesIv::from_hex(&aes_iv)
            .ok_or_else(|| wrong("aes_iv", "has to be 16 random bytes in hex: 32 digits"))?,
        protocol_version: ProtocolVersion::from_number(members.required_number("protocol_version", 2)?),
        version: version(&mut members)?,
        cipher: match members.text("cipher", 32)? {
            Some(text) => cipher("cipher", &text)?,
            None => CipherKind::AesCbc,
        },
    };
    members.nothing_else("aes_key, aes_iv, protocol_version, version and cipher")?;
    if request.cipher == CipherKind::AesGcm {
        return Err(Problem::member(
            ProblemKind::Unprocessable,
            "cipher",
            "aes-gcm is not given to stock clients: they use a token's key over every reconnect and count nonces \
             from 0 each time, and AES-GCM is broken as soon as a key and nonce come twice; use aes-cbc or \
             aes-gcm-siv",
        ));
    }
    Ok(request)
}

/// Decides whether the client that proved `key` gets a token.
pub fn decide_issue(
    table: &RouteTable,
    key: Option<&Fingerprint>,
    request: &IssueRequest,
    terms: &TokenTerms,
    now_unix: u64,
    random: &mut impl Random,
) -> Result<Grant, Problem> {
    let (route, key) = route_of(table, key)?;
    let warned_by = admit(route, request.version.as_deref(), None)?;
    let material = KeyMaterial {
        aes_key: request.aes_key.clone(),
        aes_iv: request.aes_iv.clone(),
        cipher: request.cipher,
    };
    let version = request.version.as_deref();
    grant(route, key, "", version, request.protocol_version, material, terms, now_unix, random)
        .map(|granted| Grant { warned_by, ..granted })
}

/// The answer of `POST /v1/issue`; members named as stock issuers name them.
#[derive(Serialize)]
pub(super) struct IssuedToken<'a> {
    pub(super) token: &'a str,
    pub(super) valid: u64,
    pub(super) server: Option<&'a str>,
    pub(super) hostnames: Vec<&'a str>,
    pub(super) protocol_version: ProtocolVersion,
    pub(super) cipher: CipherKind,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) warnings: &'a [BlockedBy],
    #[serde(rename = "serverTime")]
    pub(super) server_time: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(cipher: &str, more: &str) -> Vec<u8> {
        format!(
            r#"{{"aes_key": "{}", "aes_iv": "{}", "protocol_version": 1{cipher}{more}}}"#,
            "0a".repeat(32),
            "0B".repeat(16)
        )
        .into_bytes()
    }

    #[test]
    fn a_stock_client_speaks_aes_cbc_unless_it_says_otherwise() {
        let request = parse_issue_request(&body("", "")).unwrap();
        assert_eq!(request.cipher, CipherKind::AesCbc);
        assert_eq!(request.protocol_version, ProtocolVersion::V1);
        assert_eq!((request.aes_key, request.aes_iv), (AesKey([10; 32]), AesIv([11; 16])));
        let request =
            parse_issue_request(&body(r#","cipher":"aes-gcm-siv""#, r#","version":"2026.1.0""#)).unwrap();
        assert_eq!(request.cipher, CipherKind::AesGcmSiv);
        assert_eq!(request.version.as_deref(), Some("2026.1.0"));
    }

    #[test]
    fn aes_gcm_is_refused_and_the_reason_told() {
        let problem = parse_issue_request(&body(r#","cipher":"aes-gcm""#, "")).unwrap_err();
        assert_eq!(problem.kind.status(), 422);
        assert_eq!(problem.pointer.as_deref(), Some("/cipher"));
        assert!(problem.detail.contains("nonce") && problem.detail.contains("aes-gcm-siv"), "{problem:?}");
    }

    #[test]
    fn every_error_names_the_member_and_never_the_secret() {
        let good = String::from_utf8(body("", "")).unwrap();
        let key = "0a".repeat(32);
        for (from, to, pointer) in [
            (key.as_str(), "0a0a", "/aes_key"),
            (key.as_str(), &format!("{}zz", "0a".repeat(31)), "/aes_key"),
            ("0B0B", "0B", "/aes_iv"),
            ("\"protocol_version\": 1", "\"protocolVersion\": 1", "/protocol_version"),
            ("\"protocol_version\": 1", "\"protocol_version\": 3", "/protocol_version"),
            ("\"protocol_version\": 1", "\"protocol_version\": 1.0", "/protocol_version"),
            ("\"protocol_version\": 1", "\"protocol_version\": 1, \"cypher\": \"aes-cbc\"", "/cypher"),
        ] {
            let problem = parse_issue_request(good.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem:?}");
            assert!(!problem.detail.contains("0a0a"), "{problem:?}");
        }
    }
}
