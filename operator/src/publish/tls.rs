//! Whom we let in: TLS 1.3, and a certificate of the installation's own authority.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Why connections cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates to trust are of no use.
    #[error(
        "proxies' certificates cannot be checked: {0}; is the installation's authority in its Secret whole?"
    )]
    Trust(#[from] rustls::server::VerifierBuilderError),
    /// rustls refuses the settings.
    #[error("TLS for proxies cannot be set up: {0}")]
    Settings(#[from] rustls::Error),
}

/// TLS as proxies are met: 1.3 only, and only with a certificate that one of `trusted` signed.
pub fn server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    trusted: RootCertStore,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A connection lasts; and one that goes on from an older one would not show its certificate again.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The names in a certificate.
pub(crate) fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}
