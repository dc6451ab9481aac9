//! The certificate that visitors see in terminate mode: where it comes from, and the TLS settings made of it.
//!
//! A [`CertificateSource`] says which certificate is to be shown; [`Certificates`] asks it whenever the
//! hostnames change and once in a while, and swaps the TLS settings that new connections use. A source that
//! needs the network (ACME) does its orders in a task of its own and hands out what it has got here.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

mod facts;
mod files;
mod self_signed;

pub use facts::CertificateFacts;
pub use files::Files;
pub use self_signed::SelfSigned;

/// Changed files are noticed within this time, and an expiring certificate is replaced.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// No certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] crate::state_folder::StateError),
    /// A file is missing, or is not what it should be.
    #[error("{file}: {what}")]
    File {
        /// Which.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

/// A certificate chain and its key.
pub struct Chain {
    /// The instance's own certificate first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

/// Where the certificate comes from.
pub trait CertificateSource: Send + fmt::Debug {
    /// The chain to show for `hostnames` from now on; `None` while the one handed out last is still right.
    fn chain(&mut self, hostnames: &[String], now: SystemTime) -> Result<Option<Chain>, CertificateError>;
}

/// What new visitors are shown.
#[derive(Debug)]
pub struct Certificates {
    source: Mutex<Box<dyn CertificateSource>>,
    hostnames: ArcSwap<Vec<String>>,
    tls: ArcSwapOption<ServerConfig>,
    facts: ArcSwapOption<CertificateFacts>,
}

impl Certificates {
    /// Asks the source for its first certificate.
    pub fn new(
        source: Box<dyn CertificateSource>,
        hostnames: Vec<String>,
    ) -> Result<Arc<Self>, CertificateError> {
        let it = Self {
            source: Mutex::new(source),
            hostnames: ArcSwap::from_pointee(hostnames),
            tls: ArcSwapOption::empty(),
            facts: ArcSwapOption::empty(),
        };
        it.look(SystemTime::now())?;
        Ok(Arc::new(it))
    }

    /// TLS settings for a new connection.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.load_full()
    }

    /// What to tell about the certificate shown.
    pub fn facts(&self) -> Option<Arc<CertificateFacts>> {
        self.facts.load_full()
    }

    /// The instance's hostnames.
    pub fn hostnames(&self) -> Arc<Vec<String>> {
        self.hostnames.load_full()
    }

    /// The session told the instance's hostnames.
    pub fn set_hostnames(&self, hostnames: &[String]) {
        if self.hostnames.load().as_slice() == hostnames {
            return;
        }
        self.hostnames.store(Arc::new(hostnames.to_vec()));
        if let Err(error) = self.look(SystemTime::now()) {
            tracing::error!(%error, "the certificate stays as it was");
        }
    }

    /// Looks for changes; runs for ever. What was shown before stays when the new one is unusable.
    pub async fn keep_fresh(&self) {
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let error = self.look(SystemTime::now()).err().map(|error| error.to_string());
            if error != told {
                if let Some(error) = &error {
                    tracing::error!(%error, "the certificate stays as it was");
                }
                told = error;
            }
        }
    }

    fn look(&self, now: SystemTime) -> Result<(), CertificateError> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(chain) = source.chain(&self.hostnames.load(), now)? else { return Ok(()) };
        let facts = CertificateFacts::of_chain(&chain)?;
        self.tls.store(Some(Arc::new(tls_settings(chain)?)));
        tracing::info!(
            fingerprint = %facts.fingerprint_sha256, names = ?facts.names, not_after = %facts.not_after,
            "certificate in use"
        );
        self.facts.store(Some(Arc::new(facts)));
        Ok(())
    }
}

fn tls_settings(chain: Chain) -> Result<ServerConfig, CertificateError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |error: rustls::Error| CertificateError::Make(error.to_string());
    let mut settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain.certificates, chain.key)
        .map_err(unusable)?;
    // No acme-tls/1: a hello that offers that alone ends in an alert.
    settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Flaky(Vec<Result<Option<Chain>, CertificateError>>);

    impl CertificateSource for Flaky {
        fn chain(&mut self, _: &[String], _: SystemTime) -> Result<Option<Chain>, CertificateError> {
            self.0.remove(0)
        }
    }

    fn chain(name: &str) -> Chain {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Chain { certificates: vec![made.cert.der().clone()], key }
    }

    #[test]
    fn the_last_good_certificate_stays() {
        let failure = || Err(CertificateError::Make("no".into()));
        let source = Flaky(vec![Ok(Some(chain("a"))), failure(), Ok(None), Ok(Some(chain("b")))]);
        let it = Certificates::new(Box::new(source), vec!["a".into()]).unwrap();
        let first = it.facts().unwrap();
        it.look(SystemTime::now()).unwrap_err();
        it.look(SystemTime::now()).unwrap();
        assert_eq!(it.facts().unwrap(), first);
        it.set_hostnames(&["a".into()]);
        assert_eq!(it.facts().unwrap(), first, "the same names ask nobody");
        it.set_hostnames(&["b".into()]);
        assert_eq!(it.facts().unwrap().names, ["b"]);
    }
}
