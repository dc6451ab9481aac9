//! Bodies of the session API: what is accepted says what a plain JSON reader finds there and reads the
//! same once it was written out again; what is refused makes a whole problem document.
#![no_main]

use latchkey_proxy::session_api::{
    MAX_BODY_BYTES, Problem, parse_enrol_request, parse_issue_request, parse_session_request,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use snitun::version::ProtocolVersion;

fuzz_target!(|body: &[u8]| {
    let plain = serde_json::from_slice::<Value>(body).ok();
    let member = |name: &str| plain.as_ref().and_then(|value| value.get(name)).cloned().unwrap_or_default();
    let version_is = |name: &str, version: ProtocolVersion| {
        let number = member(name).as_u64().expect("a version is a whole number");
        assert_eq!(version, ProtocolVersion::from_number(number));
    };

    match parse_session_request(body) {
        Err(problem) => check(&problem),
        Ok(request) => {
            assert!(body.len() <= MAX_BODY_BYTES && plain.as_ref().is_some_and(Value::is_object));
            assert_eq!(member("agentVersion"), request.agent_version);
            assert_eq!(member("version").as_str(), request.version.as_deref());
            assert_eq!(member("cipher"), request.cipher.name());
            version_is("protocolVersion", request.protocol_version);
            assert_eq!(member("certificate").is_null(), request.certificate.is_none());
            let again = json!({
                "agentVersion": request.agent_version,
                "version": request.version,
                "product": request.product.as_ref().map(|product| product.to_string()),
                "cipher": request.cipher,
                "protocolVersion": request.protocol_version,
                "certificate": request.certificate.as_ref().map(|certificate| json!({
                    "fingerprintSha256": certificate.fingerprint_sha256.to_string(),
                    "names": certificate.names,
                    "issuer": certificate.issuer,
                    "notAfter": certificate.not_after,
                })),
            });
            assert_eq!(parse_session_request(again.to_string().as_bytes()).ok(), Some(request));
        }
    }

    match parse_issue_request(body) {
        Err(problem) => check(&problem),
        Ok(request) => {
            assert!(body.len() <= MAX_BODY_BYTES && plain.as_ref().is_some_and(Value::is_object));
            let hex = |name| member(name).as_str().map(str::to_ascii_lowercase);
            assert_eq!(hex("aes_key"), Some(request.aes_key.to_hex()));
            assert_eq!(hex("aes_iv"), Some(request.aes_iv.to_hex()));
            version_is("protocol_version", request.protocol_version);
            let again = json!({
                "aes_key": request.aes_key.to_hex(),
                "aes_iv": request.aes_iv.to_hex(),
                "protocol_version": request.protocol_version,
                "version": request.version,
                "cipher": request.cipher,
            });
            assert_eq!(parse_issue_request(again.to_string().as_bytes()).ok(), Some(request));
        }
    }

    match parse_enrol_request(body, None) {
        Err(problem) => check(&problem),
        Ok(request) => {
            assert!(!request.proved && plain.as_ref().is_some_and(Value::is_object));
            let text = format!("{request:?}");
            let token = member("joinToken");
            let token = token.as_str().expect("a join token is a text");
            // Short ones are found everywhere.
            assert!(token.len() < 16 || !text.contains(token), "the join token is shown: {text}");
        }
    }
});

fn check(problem: &Problem) {
    assert!((400..500).contains(&problem.kind.status().as_u16()), "{problem:?}");
    let document = serde_json::to_value(problem.document(0)).expect("a problem is a document");
    assert!(document["title"].is_string() && document["status"].is_u64(), "{document}");
    // What is logged in one line stays in one line.
    assert!(!problem.detail.contains('\n'), "{}", problem.detail);
}
