//! A certificate somebody else keeps in files, such as a mounted Secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{CertificateError, CertificateSource, Chain};

/// More than any chain needs.
const LARGEST: u64 = 1024 * 1024;

/// `--cert` and `--key`, read again when they change.
#[derive(Debug)]
pub struct Files {
    certificate: PathBuf,
    key: PathBuf,
    handed_out: Option<[u8; 32]>,
}

impl Files {
    /// The chain and its key, both PEM.
    pub fn new(certificate: &Path, key: &Path) -> Self {
        Self { certificate: certificate.to_owned(), key: key.to_owned(), handed_out: None }
    }
}

impl CertificateSource for Files {
    fn chain(&mut self, _: &[String], _: SystemTime) -> Result<Option<Chain>, CertificateError> {
        // They are small, and content tells more than times of files that are moved over each other.
        let (certificate, key) = (read(&self.certificate)?, read(&self.key)?);
        let content: [u8; 32] =
            Sha256::new().chain_update(Sha256::digest(&*certificate)).chain_update(&*key).finalize().into();
        if self.handed_out == Some(content) {
            return Ok(None);
        }
        let certificates = CertificateDer::pem_slice_iter(&certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&self.certificate, &error))?;
        if certificates.is_empty() {
            return Err(wrong(&self.certificate, &"holds no certificate (PEM)"));
        }
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong(&self.key, &error))?;
        // Both are replaced one after the other: a pair that does not match is not remembered, and looked at again.
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let signing = provider.key_provider.load_private_key(key.clone_key());
        let signing = signing.map_err(|error| wrong(&self.key, &error))?;
        rustls::sign::CertifiedKey::new(certificates.clone(), signing).keys_match().map_err(|error| {
            wrong(&self.key, &format!("is not the key of {}: {error}", self.certificate.display()))
        })?;
        self.handed_out = Some(content);
        Ok(Some(Chain { certificates, key }))
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let length = fs::metadata(path).map_err(|error| wrong(path, &error))?.len();
    if length > LARGEST {
        return Err(wrong(path, &io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    fs::read(path).map(Zeroizing::new).map_err(|error| wrong(path, &error))
}

fn wrong(path: &Path, what: &impl ToString) -> CertificateError {
    CertificateError::File { file: path.display().to_string(), what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_again_when_they_change_and_must_match() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let mut source = Files::new(&cert, &key);
        let now = SystemTime::now();
        assert!(source.chain(&[], now).unwrap_err().to_string().contains("c.pem"));

        let one = rcgen::generate_simple_self_signed(vec!["one".into()]).unwrap();
        let two = rcgen::generate_simple_self_signed(vec!["two".into()]).unwrap();
        fs::write(&cert, one.cert.pem()).unwrap();
        fs::write(&key, one.signing_key.serialize_pem()).unwrap();
        assert_eq!(source.chain(&[], now).unwrap().unwrap().certificates, [one.cert.der().clone()]);
        assert!(source.chain(&[], now).unwrap().is_none());

        fs::write(&cert, two.cert.pem()).unwrap();
        let error = source.chain(&[], now).unwrap_err().to_string();
        assert!(error.contains("k.pem"), "{error}");
        fs::write(&key, two.signing_key.serialize_pem()).unwrap();
        assert_eq!(source.chain(&[], now).unwrap().unwrap().certificates, [two.cert.der().clone()]);
    }
}
