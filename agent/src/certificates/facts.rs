//! What can be told about a certificate.

use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::{CertificateError, Chain};
use crate::identity::hex;

/// What a person compares, and what is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the certificate (DER), lower-case hex.
    pub fingerprint_sha256: String,
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`), lower-case hex.
    pub public_key_sha256: String,
    /// The names it is for.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// When it expires, such as `2026-11-21T00:00:00Z`.
    pub not_after: String,
    /// The same in Unix seconds.
    pub not_after_unix: i64,
}

impl CertificateFacts {
    /// Of a chain's first certificate.
    pub fn of_chain(chain: &Chain) -> Result<Self, CertificateError> {
        let first =
            chain.certificates.first().ok_or_else(|| CertificateError::Make("the chain is empty".into()))?;
        Self::of(first).ok_or_else(|| CertificateError::Make("the certificate cannot be read".into()))
    }

    /// Of a certificate in DER.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten().map(|extension| {
            let names = &extension.value.general_names;
            names.iter().filter_map(name).collect()
        });
        let not_after = certificate.validity().not_after;
        Some(Self {
            fingerprint_sha256: hex(&Sha256::digest(der)),
            public_key_sha256: hex(&Sha256::digest(certificate.public_key().raw)),
            names: names.unwrap_or_default(),
            issuer: certificate.issuer().to_string(),
            not_after: timestamp(not_after.to_datetime()),
            not_after_unix: not_after.timestamp(),
        })
    }

    /// The fingerprint as browsers show it: upper-case pairs and colons.
    pub fn fingerprint_as_browsers_show_it(&self) -> String {
        let pairs = self.fingerprint_sha256.as_bytes().chunks(2);
        pairs.map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect::<Vec<_>>().join(":")
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => Some(std::net::Ipv4Addr::from(v4).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string()),
        },
        _ => None,
    }
}

fn timestamp(at: time::OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_off_the_certificate() {
        let mut params =
            rcgen::CertificateParams::new(vec!["a.example.com".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "somebody");
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let facts = CertificateFacts::of(&der).unwrap();
        assert_eq!(facts.names, ["a.example.com", "127.0.0.1"]);
        assert_eq!(facts.not_after, "2031-02-03T00:00:00Z");
        assert!(facts.issuer.contains("somebody"), "{}", facts.issuer);
        assert_eq!(facts.fingerprint_sha256, hex(&Sha256::digest(&der)));
        let shown = facts.fingerprint_as_browsers_show_it();
        assert_eq!(shown.len(), 32 * 3 - 1);
        assert_eq!(shown.replace(':', "").to_lowercase(), facts.fingerprint_sha256);
        assert!(CertificateFacts::of(b"nonsense").is_none());
    }
}
