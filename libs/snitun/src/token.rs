//! The session token: what a client shows first, and what a server learns from it.
//!
//! It names the hostname it is for, the key material of the session, and the protocol version *the
//! client* understands. It may be shown again until it expires, so whatever else has to hold (is the
//! instance still enabled? are its keys still these?) is for the server to look up each time.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use zeroize::Zeroizing;

pub use crate::fernet::{FernetError, FernetKeys, KeyError, MAX_KEYS, MAX_TOKEN_LEN};
use crate::{
    cipher::{AesIv, AesKey, CipherKind},
    version::ProtocolVersion,
};

/// The longest hostname DNS can carry.
pub const MAX_HOSTNAME_LEN: usize = 253;

/// The most further hostnames a token may name.
pub const MAX_ALIASES: usize = 64;

/// The longest of Latchkey's own claims.
pub const MAX_CLAIM_LEN: usize = 256;

/// How every token begins: base64 of the version byte 0x80 and of a time before the year 2106.
const PREFIX: &[u8] = b"gA";

/// Do the first bytes of a connection open a token?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// Too few bytes to tell.
    NeedMore,
    /// They do; whether it is a good one shows when it is opened.
    Token,
    /// They do not.
    NotToken,
}

/// Tells a token by its first two bytes.
pub fn looks_like_token(first_bytes: &[u8]) -> Guess {
    if first_bytes.starts_with(PREFIX) {
        Guess::Token
    } else if PREFIX.starts_with(first_bytes) {
        Guess::NeedMore
    } else {
        Guess::NotToken
    }
}

/// Why a token does not open a tunnel, or could not be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// The envelope did not open.
    #[error("the token is {0}")]
    Envelope(#[from] FernetError),
    /// It opened, but what is inside is no token of this protocol.
    #[error("the token cannot be read: {0}")]
    Content(String),
    /// It was good once.
    #[error("the token expired {by_seconds:.0} s ago: get a new one")]
    Expired {
        /// For how long it has not been valid.
        by_seconds: f64,
    },
    /// It would be longer than a server reads.
    #[error("the token would be longer than {MAX_TOKEN_LEN} bytes: name fewer aliases")]
    TooLong,
}

impl TokenError {
    /// Could the rest of a token that arrived in pieces make it a good one?
    pub const fn more_bytes_may_help(&self) -> bool {
        matches!(self, Self::Envelope(error) if error.more_bytes_may_help())
    }
}

/// What Latchkey adds to the tokens it issues, in the member `latchkey`. Others pass over it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatchkeyClaims {
    /// The instance, as `namespace/name`.
    pub instance: String,
    /// The generation of the instance's keys; the table decides whether it is still the current one.
    pub generation: u64,
    /// The product version the agent reported; empty when it did not say.
    pub version: String,
    /// The agent's own version.
    pub agent: String,
    /// The fingerprint of the key the agent proved.
    pub key: String,
    /// The id of the session, for logs.
    pub session: String,
}

/// The content of a session token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Until when it opens tunnels, in Unix seconds.
    pub valid: f64,
    /// The hostname whose visitors come through the tunnel; lower case, no trailing dot.
    pub hostname: String,
    /// The session's key.
    pub aes_key: AesKey,
    /// The session's initial vector.
    pub aes_iv: AesIv,
    /// What the client that holds this token understands.
    pub protocol_version: ProtocolVersion,
    /// The cipher of the session.
    pub cipher: CipherKind,
    /// Further hostnames; lower case, no trailing dot.
    pub alias: Vec<String>,
    /// Latchkey's own claims, in tokens that Latchkey issued.
    pub extra: Option<LatchkeyClaims>,
}

impl Token {
    /// Opens a token and checks that it holds at `now_unix`.
    pub fn open(keys: &FernetKeys, bytes: &[u8], now_unix: f64) -> Result<Self, TokenError> {
        let payload = keys.decrypt(bytes)?;
        // The error tells the kind and the place, never what stood there.
        let content: Content = serde_json::from_slice(&payload).map_err(|error| {
            TokenError::Content(format!("{:?} error at column {}", error.classify(), error.column()))
        })?;
        let token = Self::try_from(content)?;
        let by_seconds = now_unix - token.valid;
        if by_seconds > 0.0 { Err(TokenError::Expired { by_seconds }) } else { Ok(token) }
    }

    /// Seals a token with the newest key. The IV of the envelope has to be random and new each time.
    pub fn seal(&self, keys: &FernetKeys, now_unix: u64, iv: [u8; 16]) -> Result<String, TokenError> {
        check_name(&self.hostname).map_err(content_error)?;
        check_aliases(&self.alias)?;
        if !self.valid.is_finite() {
            return Err(content_error("its end of validity is no number"));
        }
        if let Some(claims) = &self.extra {
            check_claims(claims)?;
        }
        let key = Zeroizing::new(self.aes_key.to_hex());
        let iv_hex = Zeroizing::new(self.aes_iv.to_hex());
        let payload = serde_json::to_vec(&Written {
            valid: self.valid,
            hostname: &self.hostname,
            aes_key: &key,
            aes_iv: &iv_hex,
            protocol_version: self.protocol_version,
            cipher: (self.cipher != CipherKind::default()).then_some(self.cipher),
            alias: &self.alias,
            latchkey: self.extra.as_ref(),
        });
        let payload = Zeroizing::new(payload.map_err(|error| TokenError::Content(error.to_string()))?);
        let token = keys.encrypt(&payload, now_unix, iv);
        if token.len() > MAX_TOKEN_LEN { Err(TokenError::TooLong) } else { Ok(token) }
    }

    /// Every hostname the token names, the first one first.
    pub fn hostnames(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.hostname).chain(&self.alias).map(String::as_str)
    }
}

/// The JSON as it arrives. Members we do not know are passed over; those the reference may leave out
/// or write as null have a default.
#[derive(Deserialize)]
struct Content {
    valid: f64,
    hostname: String,
    aes_key: Secret<AesKey>,
    aes_iv: Secret<AesIv>,
    #[serde(default)]
    protocol_version: Option<ProtocolVersion>,
    #[serde(default)]
    cipher: Option<CipherKind>,
    #[serde(default)]
    alias: Option<Vec<String>>,
    #[serde(default)]
    latchkey: Option<LatchkeyClaims>,
}

/// The JSON as we write it: what is a default is left out, as the reference does.
#[derive(Serialize)]
struct Written<'a> {
    valid: f64,
    hostname: &'a str,
    aes_key: &'a str,
    aes_iv: &'a str,
    protocol_version: ProtocolVersion,
    #[serde(skip_serializing_if = "Option::is_none")]
    cipher: Option<CipherKind>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    alias: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    latchkey: Option<&'a LatchkeyClaims>,
}

impl TryFrom<Content> for Token {
    type Error = TokenError;

    fn try_from(content: Content) -> Result<Self, TokenError> {
        let mut alias = content.alias.unwrap_or_default();
        check_aliases(&alias)?;
        alias.iter_mut().for_each(normalise);
        let mut hostname = content.hostname;
        check_name(&hostname).map_err(content_error)?;
        normalise(&mut hostname);
        if let Some(claims) = &content.latchkey {
            check_claims(claims)?;
        }
        Ok(Self {
            valid: content.valid,
            hostname,
            aes_key: content.aes_key.0,
            aes_iv: content.aes_iv.0,
            protocol_version: content.protocol_version.unwrap_or_default(),
            cipher: content.cipher.unwrap_or_default(),
            alias,
            extra: content.latchkey,
        })
    }
}

fn content_error(text: &str) -> TokenError {
    TokenError::Content(text.to_owned())
}

/// However many there are: what was read once reads the same again.
fn without_dot(name: &str) -> &str {
    name.trim_end_matches('.')
}

/// Names are compared with what visitors ask for, which is lower-cased and has no trailing dot.
fn normalise(name: &mut String) {
    name.truncate(without_dot(name).len());
    name.make_ascii_lowercase();
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let name = without_dot(name);
    if name.is_empty() {
        Err("a hostname is empty")
    } else if name.len() > MAX_HOSTNAME_LEN {
        Err("a hostname is longer than 253 bytes")
    } else if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("a hostname has characters that no hostname has")
    } else {
        Ok(())
    }
}

fn check_aliases(alias: &[String]) -> Result<(), TokenError> {
    if alias.len() > MAX_ALIASES {
        return Err(content_error("it names more than 64 aliases"));
    }
    alias.iter().try_for_each(|name| check_name(name)).map_err(content_error)
}

fn check_claims(claims: &LatchkeyClaims) -> Result<(), TokenError> {
    let LatchkeyClaims { instance, generation: _, version, agent, key, session } = claims;
    if [instance, version, agent, key, session].into_iter().any(|claim| claim.len() > MAX_CLAIM_LEN) {
        return Err(content_error("one of its claims is longer than 256 bytes"));
    }
    Ok(())
}

/// A secret in hexadecimal, decoded without a copy of its text being left behind.
struct Secret<T>(T);

trait FromHex: Sized {
    const EXPECTED: &'static str;
    fn from_hex(text: &str) -> Option<Self>;
}

impl FromHex for AesKey {
    const EXPECTED: &'static str = "64 hexadecimal digits";
    fn from_hex(text: &str) -> Option<Self> {
        Self::from_hex(text)
    }
}

impl FromHex for AesIv {
    const EXPECTED: &'static str = "32 hexadecimal digits";
    fn from_hex(text: &str) -> Option<Self> {
        Self::from_hex(text)
    }
}

impl<'de, T: FromHex> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<T: FromHex> de::Visitor<'_> for Visitor<T> {
            type Value = Secret<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                // Not `invalid_value`: it would quote the secret.
                T::from_hex(text).map(Secret).ok_or_else(|| E::custom(T::EXPECTED))
            }
        }
        deserializer.deserialize_str(Visitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE};

    use super::*;

    const NOW: f64 = 1_700_000_000.0;

    fn keys() -> FernetKeys {
        FernetKeys::from_lines(&URL_SAFE.encode([7; 32])).unwrap()
    }

    fn token() -> Token {
        Token {
            valid: NOW + 60.0,
            hostname: "lake-house.ui.example.com".into(),
            aes_key: AesKey([1; 32]),
            aes_iv: AesIv([2; 16]),
            protocol_version: ProtocolVersion::V2,
            cipher: CipherKind::AesGcmSiv,
            alias: vec!["home.example.com".into()],
            extra: Some(LatchkeyClaims {
                instance: "homes/lake-house".into(),
                generation: 3,
                version: "2026.11.1".into(),
                agent: "0.1.0".into(),
                key: "ab".repeat(32),
                session: "s-1".into(),
            }),
        }
    }

    fn open_json(json: &str) -> Result<Token, TokenError> {
        let keys = keys();
        Token::open(&keys, keys.encrypt(json.as_bytes(), 0, [0; 16]).as_bytes(), NOW)
    }

    fn json(members: &str) -> String {
        let (key, iv) = ("0f".repeat(32), "f0".repeat(16));
        format!(
            r#"{{"valid": {NOW}, "hostname": "A.Example.", "aes_key": "{key}", "aes_iv": "{iv}"{members}}}"#
        )
    }

    #[test]
    fn what_is_sealed_opens() {
        let sealed = token().seal(&keys(), 5, [9; 16]).unwrap();
        assert_eq!(looks_like_token(sealed.as_bytes()), Guess::Token);
        assert_eq!(Token::open(&keys(), sealed.as_bytes(), NOW).unwrap(), token());
    }

    #[test]
    fn absent_and_null_members_have_the_defaults_of_the_protocol() {
        for members in ["", r#", "alias": null, "cipher": null, "protocol_version": null, "new": {"a": [1]}"#]
        {
            let token = open_json(&json(members)).unwrap();
            assert_eq!(token.hostname, "a.example");
            assert_eq!(token.protocol_version, ProtocolVersion::V0);
            assert_eq!(token.cipher, CipherKind::AesCbc);
            assert_eq!(token.alias, Vec::<String>::new());
            assert_eq!(token.extra, None);
            assert_eq!(token.hostnames().collect::<Vec<_>>(), ["a.example"]);
        }
    }

    #[test]
    fn expiry_is_the_tokens_own() {
        let sealed = token().seal(&keys(), 0, [0; 16]).unwrap();
        assert!(Token::open(&keys(), sealed.as_bytes(), NOW + 60.0).is_ok());
        let error = Token::open(&keys(), sealed.as_bytes(), NOW + 62.0).unwrap_err();
        assert_eq!(error, TokenError::Expired { by_seconds: 2.0 });
        assert!(!error.more_bytes_may_help());
    }

    #[test]
    fn a_token_in_pieces_asks_for_the_rest() {
        let sealed = token().seal(&keys(), 0, [0; 16]).unwrap();
        for length in 0..sealed.len() {
            let error = Token::open(&keys(), &sealed.as_bytes()[..length], NOW).unwrap_err();
            assert!(error.more_bytes_may_help(), "{length}: {error}");
        }
    }

    #[test]
    fn bad_content_is_refused_and_the_secret_is_not_quoted() {
        let long = "a".repeat(254);
        let many = vec!["\"a\""; 65].join(",");
        for bad in [
            json(r#", "cipher": "rot13""#),
            json(r#", "protocol_version": "2""#),
            json(r#", "alias": [" "]"#),
            json(r#", "alias": [""]"#),
            json(&format!(r#", "alias": ["{long}"]"#)),
            json(&format!(r#", "alias": [{many}]"#)),
            json(&format!(r#", "latchkey": {{"instance": "{long}{long}"}}"#)),
            json("").replace("0f0f", "0g0f"),
            json("").replacen("0f", "+f", 1),
            json("").replacen("0f", "", 1),
            json("").replace("A.Example.", "."),
            json("").replace("A.Example.", ".."),
            json("").replace("A.Example.", "a\\u0000b"),
            "[]".into(),
            "nonsense".into(),
        ] {
            let error = open_json(&bad).unwrap_err();
            assert!(matches!(error, TokenError::Content(_)), "{bad}");
            assert!(!error.more_bytes_may_help());
            assert!(!error.to_string().contains("0f0f"), "{error}");
        }
    }

    #[test]
    fn what_no_server_would_read_is_not_sealed() {
        let many = Token { alias: vec!["a".repeat(60); 40], ..token() };
        assert_eq!(many.seal(&keys(), 0, [0; 16]), Err(TokenError::TooLong));
        for broken in [
            Token { hostname: String::new(), ..token() },
            Token { valid: f64::NAN, ..token() },
            Token { alias: vec!["a b".into()], ..token() },
        ] {
            assert!(matches!(broken.seal(&keys(), 0, [0; 16]), Err(TokenError::Content(_))), "{broken:?}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("{:?}", token());
        assert!(text.contains("lake-house") && text.contains("AesKey(..)"), "{text}");
        assert!(!text.contains("[1, 1"), "{text}");
    }

    #[test]
    fn the_first_bytes_tell() {
        assert_eq!(looks_like_token(b""), Guess::NeedMore);
        assert_eq!(looks_like_token(b"g"), Guess::NeedMore);
        assert_eq!(looks_like_token(b"gA"), Guess::Token);
        assert_eq!(looks_like_token(b"gB"), Guess::NotToken);
        assert_eq!(looks_like_token(&[0x16, 3, 1]), Guess::NotToken);
    }
}
