//! A session in a file, as an issuer for stock clients hands it out.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use snitun::cipher::{AesIv, AesKey, CipherKind};
use snitun::version::ProtocolVersion;
use zeroize::Zeroizing;

use super::{Session, SessionError};

/// More than any session needs.
const LARGEST: usize = 64 * 1024;

/// `--session FILE`, with the server's address from `--server`.
#[derive(Debug, Clone)]
pub struct SessionFile {
    path: PathBuf,
    server: String,
}

/// Text that is wiped when it is dropped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Secret(Zeroizing<String>);

#[derive(Deserialize)]
struct Fields {
    token: Secret,
    aes_key: Secret,
    aes_iv: Secret,
    /// A stock client that is told nothing takes the server for version 0.
    #[serde(default)]
    protocol_version: u64,
    #[serde(default)]
    cipher: Option<String>,
    #[serde(default)]
    hostnames: Option<Vec<String>>,
}

impl SessionFile {
    /// The session in the file at `path`, for the server at `HOST:PORT`.
    pub fn new(path: &Path, server: &str) -> Self {
        Self { path: path.to_owned(), server: server.to_owned() }
    }

    /// Reads the file.
    pub async fn read(&self) -> Result<Session, SessionError> {
        let wrong =
            |what: String| SessionError::File(format!("session file {}: {what}", self.path.display()));
        let text = tokio::fs::read_to_string(&self.path).await.map(Zeroizing::new);
        let text = text.map_err(|error| wrong(error.to_string()))?;
        if text.len() > LARGEST {
            return Err(wrong(format!("is larger than {LARGEST} bytes, this is no session")));
        }
        parse(&text, &self.server).map_err(wrong)
    }
}

fn parse(text: &str, server: &str) -> Result<Session, String> {
    // An error of the parser can quote the text, and the text is secret: only its place is told.
    let fields: Fields = serde_json::from_str(text).map_err(|error| {
        format!(
            "line {} column {} is not what is expected: JSON with token, aes_key, aes_iv, protocol_version and \
             cipher ({})",
            error.line(),
            error.column(),
            missing(text)
        )
    })?;
    let aes_key = AesKey::from_hex(&fields.aes_key.0).ok_or("aes_key must be 64 hex digits")?;
    let aes_iv = AesIv::from_hex(&fields.aes_iv.0).ok_or("aes_iv must be 32 hex digits")?;
    let cipher = match fields.cipher {
        None => CipherKind::default(),
        Some(name) => name
            .parse()
            .map_err(|_| format!("cipher `{name}` is unknown: aes-cbc, aes-gcm or aes-gcm-siv"))?,
    };
    if fields.token.0.is_empty() {
        return Err("token is empty".into());
    }
    Ok(Session {
        token: fields.token.0,
        aes_key,
        aes_iv,
        protocol_version: ProtocolVersion::from_number(fields.protocol_version),
        cipher,
        server: server.to_owned(),
        hostnames: fields.hostnames,
        id: None,
        instance: None,
    })
}

fn missing(text: &str) -> String {
    let Ok(serde_json::Value::Object(members)) = serde_json::from_str(text) else {
        return "it is no JSON object".into();
    };
    let missing: Vec<_> =
        ["token", "aes_key", "aes_iv"].into_iter().filter(|name| !members.contains_key(*name)).collect();
    if missing.is_empty() {
        "a member has the wrong type".into()
    } else {
        format!("missing: {}", missing.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const IV: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn a_stock_session_is_read() {
        let text = format!(
            r#"{{"token":"gAAAA","aes_key":"{KEY}","aes_iv":"{IV}","protocol_version":1,"cipher":"aes-gcm","valid":1}}"#
        );
        let session = parse(&text, "h:1").unwrap();
        assert_eq!(*session.token, "gAAAA");
        assert_eq!(session.aes_key.to_hex(), KEY);
        assert_eq!(session.protocol_version, ProtocolVersion::V1);
        assert_eq!(session.cipher, CipherKind::AesGcm);
        assert_eq!(session.server, "h:1");
    }

    #[test]
    fn what_is_absent_means_what_it_means_to_a_stock_client() {
        let session = parse(&format!(r#"{{"token":"g","aes_key":"{KEY}","aes_iv":"{IV}"}}"#), "h:1").unwrap();
        assert_eq!(session.protocol_version, ProtocolVersion::V0);
        assert_eq!(session.cipher, CipherKind::AesCbc);
    }

    #[test]
    fn errors_say_what_is_wrong_and_quote_no_secret() {
        let secret = "secret-token";
        for (text, says) in [
            (format!(r#"{{"token":"{secret}"}}"#), "aes_key, aes_iv"),
            (format!(r#"{{"token":["{secret}"],"aes_key":"","aes_iv":""}}"#), "wrong type"),
            (format!(r#"{{"token":"{secret}","aes_key":"{secret}","aes_iv":"{IV}"}}"#), "64 hex"),
            (format!(r#"{{"token":"{secret}","aes_key":"{KEY}","aes_iv":"00"}}"#), "32 hex"),
            (
                format!(r#"{{"token":"{secret}","aes_key":"{KEY}","aes_iv":"{IV}","cipher":"rot13"}}"#),
                "rot13",
            ),
            (secret.to_owned(), "no JSON object"),
        ] {
            let error = parse(&text, "h:1").unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains(secret), "{error}");
        }
    }

    #[tokio::test]
    async fn the_file_is_read_anew_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.json");
        let file = SessionFile::new(&path, "h:1");
        let error = file.read().await.unwrap_err().to_string();
        assert!(error.contains("session.json"), "{error}");
        for token in ["one", "two"] {
            let text = format!(r#"{{"token":"{token}","aes_key":"{KEY}","aes_iv":"{IV}"}}"#);
            std::fs::write(&path, text).unwrap();
            assert_eq!(*file.read().await.unwrap().token, token);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let session =
            parse(&format!(r#"{{"token":"gAAAA","aes_key":"{KEY}","aes_iv":"{IV}"}}"#), "h:1").unwrap();
        let shown = format!("{session:?}");
        assert!(!shown.contains("gAAAA") && !shown.contains(KEY) && !shown.contains(IV), "{shown}");
    }
}
