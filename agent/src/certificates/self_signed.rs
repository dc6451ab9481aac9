//! A certificate signed by its own key, kept in the state folder. Visitors see a warning; the fingerprint is what
//! they compare, so the key stays the same for as long as the folder does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::{CertificateError, CertificateFacts, CertificateSource, Chain};
use crate::state_folder::StateFolder;

const KEY_FILE: &str = "self-signed.key";
const CERTIFICATE_FILE: &str = "self-signed.pem";
const DAY: Duration = Duration::from_hours(24);
/// Browsers refuse longer lives.
const LIFE: Duration = Duration::from_hours(24 * 397);
const RENEW_BEFORE: Duration = Duration::from_hours(24 * 30);
/// For clocks that are behind.
const BACKDATED: Duration = DAY;
/// A certificate needs a name; this one can never be asked for.
const NAMELESS: &str = "instance.invalid";

/// Makes certificates by itself.
#[derive(Debug)]
pub struct SelfSigned {
    folder: StateFolder,
    handed_out: Option<CertificateFacts>,
}

impl SelfSigned {
    /// Kept in `folder`.
    pub fn new(folder: StateFolder) -> Self {
        Self { folder, handed_out: None }
    }

    /// The certificate kept in the folder, if there is one, as it is.
    pub fn kept(folder: &StateFolder) -> Result<Option<CertificateFacts>, CertificateError> {
        let Some(pem) = folder.read(CERTIFICATE_FILE)? else { return Ok(None) };
        Ok(CertificateDer::from_pem_slice(pem.as_bytes()).ok().and_then(|der| CertificateFacts::of(&der)))
    }

    fn key(&self) -> Result<KeyPair, CertificateError> {
        if let Some(pem) = self.folder.read(KEY_FILE)? {
            return KeyPair::from_pem(&pem).map_err(|error| CertificateError::File {
                file: self.folder.path_of(KEY_FILE).display().to_string(),
                what: format!("holds no private key that can be used ({error}); restore or remove it"),
            });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        self.folder.write(KEY_FILE, &key.serialize_pem())?;
        Ok(key)
    }

    fn read(
        &self,
        key: &KeyPair,
    ) -> Result<Option<(CertificateDer<'static>, CertificateFacts)>, CertificateError> {
        let Some(pem) = self.folder.read(CERTIFICATE_FILE)? else { return Ok(None) };
        let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return Ok(None) };
        let Some(facts) = CertificateFacts::of(&der) else { return Ok(None) };
        let of_key = {
            use rcgen::PublicKeyData;
            use sha2::{Digest, Sha256};
            crate::identity::hex(&Sha256::digest(key.subject_public_key_info()))
        };
        Ok((facts.public_key_sha256 == of_key).then_some((der, facts)))
    }

    fn make(
        &self,
        key: &KeyPair,
        names: &[String],
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CertificateError> {
        let mut params = CertificateParams::new(names.to_vec()).map_err(make)?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or(NAMELESS, String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = OffsetDateTime::from(now - BACKDATED);
        params.not_after = OffsetDateTime::from(now + LIFE);
        let certificate = params.self_signed(key).map_err(make)?;
        self.folder.write(CERTIFICATE_FILE, &certificate.pem())?;
        Ok(certificate.der().clone())
    }
}

impl CertificateSource for SelfSigned {
    fn chain(&mut self, hostnames: &[String], now: SystemTime) -> Result<Option<Chain>, CertificateError> {
        let nameless = [NAMELESS.to_owned()];
        // Names not told (yet) are no reason to replace a certificate that had some.
        let names = if hostnames.is_empty() { None } else { Some(hostnames) };
        if self.handed_out.as_ref().is_some_and(|facts| right(facts, names, now)) {
            return Ok(None);
        }
        let key = self.key()?;
        let der = match self.read(&key)? {
            Some((der, facts)) if right(&facts, names, now) => der,
            _ => self.make(&key, names.unwrap_or(&nameless), now)?,
        };
        self.handed_out = CertificateFacts::of(&der);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Some(Chain { certificates: vec![der], key }))
    }
}

fn right(facts: &CertificateFacts, names: Option<&[String]>, now: SystemTime) -> bool {
    let renew_at = (now + RENEW_BEFORE).duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let fresh = facts.not_after_unix > i64::try_from(renew_at).unwrap_or(i64::MAX);
    let same = names.is_none_or(|names| {
        let (mut have, mut want) = (facts.names.clone(), names.to_vec());
        have.sort();
        want.sort();
        have == want
    });
    fresh && same
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn make(error: rcgen::Error) -> CertificateError {
    CertificateError::Make(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn facts(chain: Option<Chain>) -> CertificateFacts {
        CertificateFacts::of_chain(&chain.expect("a new certificate")).unwrap()
    }

    #[test]
    fn it_is_kept_over_restarts_and_follows_names() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(dir.path()).unwrap();
        let now = SystemTime::now();
        let mut source = SelfSigned::new(folder.clone());
        let first = facts(source.chain(&names(&["a.x"]), now).unwrap());
        assert_eq!(first.names, ["a.x"]);
        assert!(source.chain(&names(&["a.x"]), now).unwrap().is_none(), "still right");
        assert_eq!(SelfSigned::kept(&folder).unwrap().as_ref(), Some(&first));

        let mut restarted = SelfSigned::new(folder);
        let again = facts(restarted.chain(&names(&["a.x"]), now).unwrap());
        assert_eq!(again.fingerprint_sha256, first.fingerprint_sha256);

        let more = facts(restarted.chain(&names(&["b.x", "a.x"]), now).unwrap());
        assert_eq!(more.names, ["b.x", "a.x"]);
        assert_ne!(more.fingerprint_sha256, first.fingerprint_sha256);
        assert_eq!(more.public_key_sha256, first.public_key_sha256, "the key stays");
        assert!(restarted.chain(&names(&["a.x", "b.x"]), now).unwrap().is_none(), "order is no change");
    }

    #[test]
    fn unknown_names_leave_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(dir.path()).unwrap();
        let now = SystemTime::now();
        let first = facts(SelfSigned::new(folder.clone()).chain(&names(&["a.x"]), now).unwrap());
        let mut restarted = SelfSigned::new(folder);
        assert_eq!(facts(restarted.chain(&[], now).unwrap()), first);
        let empty = tempfile::tempdir().unwrap();
        let mut fresh = SelfSigned::new(StateFolder::open(empty.path()).unwrap());
        assert_eq!(facts(fresh.chain(&[], now).unwrap()).names, [NAMELESS]);
    }

    #[test]
    fn it_is_replaced_a_month_before_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = SelfSigned::new(StateFolder::open(dir.path()).unwrap());
        let now = SystemTime::now();
        source.chain(&names(&["a.x"]), now).unwrap();
        let before = now + LIFE - RENEW_BEFORE;
        assert!(source.chain(&names(&["a.x"]), before - DAY).unwrap().is_none());
        assert!(source.chain(&names(&["a.x"]), before + DAY).unwrap().is_some());
    }
}
