//! TLS of the link: 1.3, with a client certificate of the installation's own authority, which is all that either side
//! trusts.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::clock::CertificateTime;

/// The largest file that is read.
const MAX_PEM_BYTES: u64 = 256 * 1024;

/// Why the link cannot be secured.
#[derive(Debug, thiserror::Error)]
pub enum LinkTlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operator's name is none.
    #[error("the operator's name {0:?} is neither a host name nor an address: set --operator-name")]
    Name(String),
}

/// Where the files are, and whom to expect.
#[derive(Clone, Debug)]
pub(super) struct LinkTls {
    folder: PathBuf,
    pub(super) name: ServerName<'static>,
}

impl LinkTls {
    pub(super) fn new(folder: PathBuf, name: &str) -> Result<Self, LinkTlsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| LinkTlsError::Name(name.to_owned()))?;
        Ok(Self { folder, name })
    }

    /// As the files are now: they are replaced while we run, and a call is rare enough to read them each time.
    pub(super) fn connector(&self) -> Result<TlsConnector, LinkTlsError> {
        let path = |name: &str| self.folder.join(name);
        let wrong = |name: &str, reason: String| LinkTlsError::Content { path: path(name), reason };
        let chain = certificates(&path("link.crt"))?;
        let key = PrivateKeyDer::from_pem_slice(read(&path("link.key"))?.as_bytes())
            .map_err(|error| wrong("link.key", format!("no private key can be read: {error}")))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&path("trust.crt"))? {
            roots
                .add(authority)
                .map_err(|error| wrong("trust.crt", format!("an authority cannot be read: {error}")))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(CertificateTime))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong("trust.crt", error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| wrong("link.crt", format!("it does not go with link.key: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would go on with certificates that were replaced.
        config.resumption = Resumption::disabled();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkTlsError> {
    let wrong = |reason: String| LinkTlsError::Content { path: path.to_owned(), reason };
    let found: Vec<_> = CertificateDer::pem_slice_iter(read(path)?.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("no PEM certificate can be read: {error}")))?;
    if found.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Zeroizing<String>, LinkTlsError> {
    let mut text = Zeroizing::new(String::with_capacity(8 * 1024));
    File::open(path)
        .and_then(|file| file.take(MAX_PEM_BYTES).read_to_string(&mut text))
        .map_err(|source| LinkTlsError::File { path: path.to_owned(), source })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_file_that_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let tls = LinkTls::new(folder.path().to_owned(), "operator.test").unwrap();
        let error = || tls.connector().err().unwrap().to_string();
        assert!(error().contains("link.crt"), "{}", error());
        let made = rcgen::generate_simple_self_signed(["proxy-0".to_owned()]).unwrap();
        fs::write(folder.path().join("link.crt"), made.cert.pem()).unwrap();
        fs::write(folder.path().join("link.key"), "secret nonsense").unwrap();
        assert!(error().contains("link.key") && !error().contains("secret"), "{}", error());
        fs::write(folder.path().join("link.key"), made.signing_key.serialize_pem()).unwrap();
        fs::write(folder.path().join("trust.crt"), "").unwrap();
        assert!(error().contains("trust.crt: there is no certificate"), "{}", error());
        fs::write(folder.path().join("trust.crt"), made.cert.pem()).unwrap();
        assert!(tls.connector().is_ok());
        let other = rcgen::generate_simple_self_signed(["proxy-0".to_owned()]).unwrap();
        fs::write(folder.path().join("link.key"), other.signing_key.serialize_pem()).unwrap();
        assert!(error().contains("does not go with link.key"), "{}", error());
        assert!(LinkTls::new(folder.path().to_owned(), "not a name").is_err());
    }
}
