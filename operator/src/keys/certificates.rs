//! Certificates: made, signed, read.

use std::time::Duration;

use planner::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};
use zeroize::Zeroizing;

use super::rotation::{after, before};
use crate::publish;

/// A certificate counts from so long before it was made: a proxy or an agent whose clock is slow by hours is still let in.
const SLOW_CLOCKS: Duration = Duration::from_hours(24);
/// The subject of every authority of ours. The same for all, so that a key alone is enough to sign.
const AUTHORITY: &str = "Latchkey installation authority";

/// A certificate with its key, both as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: Zeroizing<String>,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) until: Timestamp,
    pub(crate) names: Vec<String>,
    /// Which key it is about.
    key: Option<Vec<u8>>,
    /// Which key signed it.
    signer: Option<Vec<u8>>,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Server,
    Client,
}

/// A new authority.
pub(crate) fn make_authority(now: Timestamp, life: Duration) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = authority_params();
    set_life(&mut params, now, after(now, life));
    let certificate = params.self_signed(&key)?.pem();
    Ok(Pair { certificate, key: Zeroizing::new(key.serialize_pem()) })
}

/// A new certificate for these names, signed by this authority, which ends then.
pub(crate) fn sign(
    authority: &Pair,
    purpose: Purpose,
    names: &[String],
    now: Timestamp,
    until: Timestamp,
) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::new(authority_params(), KeyPair::from_pem(&authority.key)?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages = vec![match purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    set_life(&mut params, now, until);
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Pair { certificate, key: Zeroizing::new(key.serialize_pem()) })
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn set_life(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    let time = |time: Timestamp| {
        let seconds = u64::try_from(time.0).unwrap_or_default();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = time(before(now, SLOW_CLOCKS));
    params.not_after = time(until);
}

impl Pair {
    /// Is the key that of the certificate?
    pub(crate) fn is_whole(&self) -> bool {
        let Some(der) = der(&self.certificate) else { return false };
        let (Ok((_, certificate)), Ok(key)) = (X509Certificate::from_der(&der), KeyPair::from_pem(&self.key))
        else {
            return false;
        };
        certificate.public_key().raw == key.subject_public_key_info()
    }
}

/// Reads the first certificate of a PEM text. `None`: there is none.
pub(crate) fn read(pem: &str) -> Option<Facts> {
    let der = der(pem)?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let (mut key, mut signer) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => key = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                signer = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    let until = Timestamp(certificate.validity().not_after.timestamp());
    Some(Facts { until, names: publish::certificate_names(&der), key, signer })
}

fn der(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

impl Facts {
    /// Did this authority sign it?
    pub(crate) fn is_signed_by(&self, authority: &Facts) -> bool {
        self.signer.is_some() && self.signer == authority.key
    }
}
