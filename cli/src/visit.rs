//! A TLS connection as a visitor makes it, which believes nobody: what was shown is told, and whether this machine
//! would have trusted it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use latchkey_agent::certificates::CertificateFacts;
use latchkey_agent::target::split_host_port;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One address gets this long before the next is tried.
const PER_ADDRESS: Duration = Duration::from_secs(4);

/// Who is visited: the host and the port of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name or address, in lower case, without a dot at its end and without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("`{text}` is not a place to visit: {why}; write it like https://home.example.com:8443/")
        };
        if !text.is_ascii() {
            return Err(wrong("letters beyond ASCII (write the name in its xn-- form)"));
        }
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = whole.parse().map_err(|_| wrong("it cannot be read as a URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("only https has certificates"));
        }
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(|| wrong("user names do not belong here"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let port = match authority.as_str().rsplit_once(':') {
            // Of an IPv6 address without a port, the last colon is inside the brackets.
            Some((_, port)) if !port.ends_with(']') => port.parse().ok().filter(|port| *port != 0),
            _ => Some(443),
        };
        let port = port.ok_or_else(|| wrong("its port is none"))?;
        ServerName::try_from(host.clone()).map_err(|_| wrong("its host is no host name"))?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, 443) => write!(f, "https://[{}]/", self.host),
            (false, 443) => write!(f, "https://{}/", self.host),
            (true, port) => write!(f, "https://[{}]:{port}/", self.host),
            (false, port) => write!(f, "https://{}:{port}/", self.host),
        }
    }
}

/// Why a visit came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// The name has no address.
    #[error("{host} has no address: {why}. Check the DNS record, or say --connect HOST:PORT")]
    NoAddress {
        /// Which name.
        host: String,
        /// In the resolver's words.
        why: String,
    },
    /// No address behind the name lets us in.
    #[error("{0}. Is the proxy running there, and the port open?")]
    Connect(String),
    /// The proxy says no before any handshake.
    #[error("{0}")]
    Refused(Refused),
    /// Something else went wrong with TLS.
    #[error("{at} answers, but not with TLS as expected: {what}")]
    Tls {
        /// Who.
        at: SocketAddr,
        /// In the library's words.
        what: String,
    },
    /// It took too long.
    #[error("{0}")]
    Late(String),
    /// A request cannot be made at all.
    #[error("{0}")]
    Local(String),
}

/// The alerts that a Latchkey proxy refuses visitors with, and what each stands for.
///
/// | alert | what it says |
/// |---|---|
/// | `unrecognized_name` | nobody is known by that name, or remote access is off, or the version is blocked |
/// | `access_denied` | the visitor's network is not allowed |
/// | `internal_error` | there is no tunnel, or no room |
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `unrecognized_name`
    #[error(
        "refused (unrecognized_name): the proxy serves nobody by that name. It is unknown, its remote access is off, or \
         its version is blocked; from outside they look alike, `latchkey status` tells them apart"
    )]
    UnknownDisabledOrBlocked,
    /// `access_denied`
    #[error(
        "refused (access_denied): your network is not among those the instance lets in (access.allowNetworks)"
    )]
    Network,
    /// `internal_error`
    #[error(
        "refused (internal_error): the proxy knows the instance and cannot reach it. Its tunnel is down, or it has as \
         many visitors as it may; look at the agent's log beside the instance"
    )]
    NotThere,
}

impl Refused {
    fn from_alert(alert: AlertDescription) -> Option<Self> {
        match alert {
            AlertDescription::UnrecognisedName => Some(Self::UnknownDisabledOrBlocked),
            AlertDescription::AccessDenied => Some(Self::Network),
            AlertDescription::InternalError => Some(Self::NotThere),
            _ => None,
        }
    }
}

/// What a visitor was shown.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Who answered.
    pub address: SocketAddr,
    /// The certificate.
    pub facts: CertificateFacts,
    /// `Err` says why this machine would not have trusted it.
    pub trusted: Result<(), String>,
    /// Such as `TLS 1.3`.
    pub protocol: &'static str,
    chain: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

impl Seen {
    /// Is it signed by one of these CAs (PEM), and for the name that was visited?
    pub fn signed_by(&self, cas: &str) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(cas.as_bytes()) {
            roots.add(ca.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        }
        signed(&provider, roots, &self.chain, &self.name)
    }
}

/// Visits; the stream is open, so that a request may follow.
pub async fn visit(
    place: &Place,
    connect: Option<&str>,
    limit: Duration,
) -> Result<(Seen, TlsStream<TcpStream>), VisitError> {
    let late = |_| VisitError::Late(format!("{place} did not answer within {} s", limit.as_secs()));
    timeout(limit, unhurried(place, connect)).await.map_err(late)?
}

async fn unhurried(place: &Place, connect: Option<&str>) -> Result<(Seen, TlsStream<TcpStream>), VisitError> {
    let name = ServerName::try_from(place.host.clone())
        .map_err(|_| VisitError::Local(format!("{} is no host name", place.host)))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = client(&provider).map_err(|error| VisitError::Local(error.to_string()))?;
    let stream = dial(place, connect).await?;
    let at = stream.peer_addr().map_err(|error| VisitError::Connect(error.to_string()))?;
    let stream =
        tls.connect(name.clone(), stream).await.map_err(|error| explain(at, error.get_ref(), &error))?;
    let session = stream.get_ref().1;
    let chain = session.peer_certificates().unwrap_or_default();
    let facts = chain.first().and_then(|first| CertificateFacts::of(first));
    let facts = facts.ok_or(VisitError::Tls { at, what: "its certificate cannot be read".to_owned() })?;
    let protocol = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let chain = chain.to_vec();
    let trusted = trusted(&provider, &chain, &name);
    Ok((Seen { address: at, facts, trusted, protocol, chain, name }, stream))
}

/// Goes to the first address that lets us in.
async fn dial(place: &Place, connect: Option<&str>) -> Result<TcpStream, VisitError> {
    let (host, port) = match connect {
        Some(text) => {
            split_host_port(text).map_err(|what| VisitError::Local(format!("--connect: {what}")))?
        }
        None => (place.host.clone(), place.port),
    };
    let addresses = addresses(&host, port).await?;
    let mut last = String::new();
    for address in addresses {
        match timeout(PER_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address} does not answer"),
        }
    }
    Err(VisitError::Connect(last))
}

async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, VisitError> {
    // Browsers and curl take these names for this machine without asking anybody; the system's resolver may not.
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            .map(|ip| SocketAddr::new(ip, port))
            .to_vec());
    }
    let none = |why: String| VisitError::NoAddress { host: host.to_owned(), why };
    let found: Vec<_> =
        tokio::net::lookup_host((host, port)).await.map_err(|error| none(error.to_string()))?.collect();
    if found.is_empty() { Err(none("the answer was empty".to_owned())) } else { Ok(found) }
}

fn explain(
    at: SocketAddr,
    inner: Option<&(dyn std::error::Error + Send + Sync + 'static)>,
    error: &std::io::Error,
) -> VisitError {
    if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref())
        && let Some(refused) = Refused::from_alert(*alert)
    {
        return VisitError::Refused(refused);
    }
    VisitError::Tls { at, what: error.to_string() }
}

fn client(provider: &Arc<CryptoProvider>) -> Result<TlsConnector, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider.clone())))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Would a program on this machine that trusts the system's CAs have gone on?
fn trusted(
    provider: &Arc<CryptoProvider>,
    chain: &[CertificateDer<'static>],
    name: &ServerName<'_>,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err("this machine has no CA certificates to ask (package ca-certificates)".to_owned());
    }
    signed(provider, roots, chain, name)
}

fn signed(
    provider: &Arc<CryptoProvider>,
    roots: RootCertStore,
    chain: &[CertificateDer<'static>],
    name: &ServerName<'_>,
) -> Result<(), String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let [first, more @ ..] = chain else { return Err("no certificate was shown".to_owned()) };
    match verifier.verify_server_cert(first, more, name, &[], UnixTime::now()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InvalidCertificate(why)) => Err(in_words(&why)),
        Err(error) => Err(error.to_string()),
    }
}

fn in_words(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "no CA that is trusted here has signed it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet (is the clock of this machine right?)".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for other names".to_owned()
        }
        other => other.to_string(),
    }
}

/// Takes any certificate, but still makes the server prove that it holds the key: a fingerprint alone is public.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_urls() {
        for (text, host, port, shown) in [
            ("https://Home.Example.com/path?x", "home.example.com", 443, "https://home.example.com/"),
            ("https://home.localhost:8443", "home.localhost", 8443, "https://home.localhost:8443/"),
            ("home.example.com.", "home.example.com", 443, "https://home.example.com/"),
            ("home.example.com:8443", "home.example.com", 8443, "https://home.example.com:8443/"),
            ("https://[::1]:8443/", "::1", 8443, "https://[::1]:8443/"),
            ("https://[::1]", "::1", 443, "https://[::1]/"),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!((place.host.as_str(), place.port), (host, port), "{text}");
            assert_eq!(place.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_place_says_why() {
        for (text, why) in [
            ("http://home.example.com", "only https"),
            ("https://bücher.example", "xn--"),
            ("https://a b/", "cannot be read"),
            ("https://", "cannot be read"),
            ("https://me@home.example.com/", "user names"),
            ("https://home.example.com:0/", "port"),
            ("https://home.example.com:70000/", "port"),
            ("https://-.example.com/", "no host name"),
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
