//! The key pair that proves which agent this is. It is made at the first start and never leaves the state folder;
//! the proxy knows the hash of its public half, as `authorized_keys` would.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use crate::state_folder::{StateError, StateFolder};

const FILE: &str = "agent.key";

/// The agent has no key it can use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// What is in the folder is no key.
    #[error(
        "{file} holds no private key that can be used: {source}. Restore it, or remove it and register the new \
         key with `latchkey-agent key`"
    )]
    Unreadable {
        /// The key's file.
        file: String,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// A key or a certificate could not be made.
    #[error("cannot make the agent's key: {0}")]
    Make(rcgen::Error),
}

/// The agent's key, and the certificate that shows it to the session API.
pub struct Identity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("public_key_sha256", &self.public_key_sha256())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The key kept in the folder; made now when there is none.
    pub fn load_or_make(folder: &StateFolder) -> Result<Arc<Self>, IdentityError> {
        let key = if let Some(pem) = folder.read(FILE)? {
            let file = folder.path_of(FILE).display().to_string();
            KeyPair::from_pem(&pem).map_err(|source| IdentityError::Unreadable { file, source })?
        } else {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Make)?;
            folder.write(FILE, &key.serialize_pem())?;
            tracing::info!(file = %folder.path_of(FILE).display(), "made the agent's key");
            key
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "latchkey-agent");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key).map_err(IdentityError::Make)?.der().clone();
        Ok(Arc::new(Self { key, certificate }))
    }

    /// SHA-256 of the public key (`SubjectPublicKeyInfo`), in lower-case hex: what `agentKeys` lists.
    pub fn public_key_sha256(&self) -> String {
        hex(&Sha256::digest(self.key.subject_public_key_info()))
    }

    /// What to show in TLS client authentication.
    pub fn client_certificate(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        (vec![self.certificate.clone()], PrivateKeyDer::Pkcs8(key))
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(dir.path()).unwrap();
        let first = Identity::load_or_make(&folder).unwrap();
        let second = Identity::load_or_make(&folder).unwrap();
        assert_eq!(first.public_key_sha256(), second.public_key_sha256());
        let other = tempfile::tempdir().unwrap();
        let third = Identity::load_or_make(&StateFolder::open(other.path()).unwrap()).unwrap();
        assert_ne!(first.public_key_sha256(), third.public_key_sha256());
    }

    #[test]
    fn the_hash_is_that_of_the_certificates_public_key() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_make(&StateFolder::open(dir.path()).unwrap()).unwrap();
        let (chain, _) = identity.client_certificate();
        let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        assert_eq!(identity.public_key_sha256(), hex(&Sha256::digest(parsed.public_key().raw)));
    }

    #[test]
    fn a_broken_key_is_an_error_and_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(dir.path()).unwrap();
        folder.write(FILE, "not a key").unwrap();
        let error = Identity::load_or_make(&folder).unwrap_err().to_string();
        assert!(error.contains("agent.key"), "{error}");
        assert_eq!(folder.read(FILE).unwrap().as_deref(), Some("not a key"));
    }

    #[test]
    fn debug_shows_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_make(&StateFolder::open(dir.path()).unwrap()).unwrap();
        let shown = format!("{identity:?}");
        assert!(shown.contains(&identity.public_key_sha256()));
        assert!(!shown.contains("PRIVATE") && shown.len() < 140, "{shown}");
    }
}
