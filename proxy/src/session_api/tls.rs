//! TLS of the session API: our certificate, and the key that an agent proves.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use route_table::Fingerprint;
use rustls::{
    DigitallySignedStruct, DistinguishedName as RustlsName, Error as TlsError, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::clock;

/// How often the folder is looked at, and our own certificate for its age.
pub const IDENTITY_WATCH_EVERY: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_hours(24);
const CA_LIFE: Duration = Duration::from_hours(3650 * 24);
const LEAF_LIFE: Duration = Duration::from_hours(90 * 24);
/// A certificate of ours is renewed when it has less than this left: a third of its life.
const RENEW_BEFORE: Duration = Duration::from_hours(30 * 24);
/// Larger than any certificate an agent has reason to show.
const MAX_CLIENT_CERTIFICATE: usize = 8 * 1024;
const MAX_PEM_BYTES: u64 = 256 * 1024;

/// Why the session API has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum ApiTlsError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("the session API's certificate cannot be made: {0}")]
    Make(String),
}

/// The session API's certificate: out of a folder, or made here.
///
/// | in the folder | what happens |
/// |---|---|
/// | `tls.crt`, `tls.key`, no `ca.key` | somebody else's: served, and read again when it changes |
/// | nothing | a CA (`ca.crt`, `ca.key`) and a certificate are made |
/// | `ca.key` too | ours: the certificate is renewed before it expires, or when the name changes |
///
/// `next-ca.crt`, where it exists, is handed to agents with every session, so that they know the next CA before
/// it is used. Without a folder the CA lives as long as the process.
#[derive(Debug)]
pub struct ApiIdentity {
    folder: Option<PathBuf>,
    current: ArcSwap<Current>,
    /// The CA of an identity without a folder.
    memory_ca: Option<MemoryCa>,
    refreshing: Mutex<()>,
}

struct Current {
    certified: Arc<CertifiedKey>,
    ca: Option<Arc<str>>,
    next_ca: Option<Arc<str>>,
    digest: [u8; 32],
    not_after: u64,
    names: Vec<String>,
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("names", &self.names).finish_non_exhaustive()
    }
}

struct MemoryCa {
    certificate: String,
    key: Zeroizing<String>,
}

impl fmt::Debug for MemoryCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryCa(..)")
    }
}

impl ApiIdentity {
    /// Opens `folder`, makes what is missing for `server_name` (`connect.<domain>`).
    pub fn open(folder: Option<&Path>, server_name: &str) -> Result<Self, ApiTlsError> {
        let now = now_unix();
        if let Some(folder) = folder {
            let current = refresh_folder(folder, server_name, now)?;
            return Ok(Self {
                folder: Some(folder.to_owned()),
                current: ArcSwap::from_pointee(current),
                memory_ca: None,
                refreshing: Mutex::new(()),
            });
        }
        tracing::warn!(
            target: "latchkey::keys",
            "no --api-tls folder given: the session API's CA ends with this process, and agents that joined by it \
             will not trust the next one"
        );
        let (certificate, key) = make_ca(now)?;
        let ca = MemoryCa { certificate, key };
        let current = memory_leaf(&ca, server_name, now)?;
        Ok(Self {
            folder: None,
            current: ArcSwap::from_pointee(current),
            memory_ca: Some(ca),
            refreshing: Mutex::new(()),
        })
    }

    /// Looks again: files that changed, a certificate that is about to expire, another name. `Ok(true)` when another
    /// certificate is served from now on; on an error the last good one stays.
    pub fn refresh(&self, server_name: &str) -> Result<bool, ApiTlsError> {
        self.refresh_at(server_name, now_unix())
    }

    fn refresh_at(&self, server_name: &str, now: u64) -> Result<bool, ApiTlsError> {
        let _one_at_a_time = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current.load_full();
        let new = match (&self.folder, &self.memory_ca) {
            (Some(folder), _) => refresh_folder(folder, server_name, now)?,
            (None, Some(ca)) if old.is_due(server_name, now) => memory_leaf(ca, server_name, now)?,
            (None, _) => return Ok(false),
        };
        let changed = new.digest != old.digest;
        if changed {
            self.current.store(Arc::new(new));
        }
        Ok(changed)
    }

    /// Refreshes for ever; `server_name` says which name is asked for now, if any.
    pub async fn watch(self: Arc<Self>, every: Duration, server_name: impl Fn() -> Option<String> + Send) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told: Option<String> = None;
        loop {
            ticks.tick().await;
            let Some(name) = server_name() else { continue };
            match self.refresh(&name) {
                Ok(changed) => {
                    if changed {
                        tracing::info!(target: "latchkey::keys", %name, "new certificate for the session API");
                    }
                    told = None;
                }
                Err(error) => {
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        tracing::error!(target: "latchkey::keys", %error, "the session API keeps its certificate");
                        told = Some(error);
                    }
                }
            }
        }
    }

    /// The CA that signed the certificate, as PEM; for join bundles.
    pub fn ca(&self) -> Option<Arc<str>> {
        self.current.load().ca.clone()
    }

    /// The CA that is going to be used, as PEM.
    pub fn next_ca(&self) -> Option<Arc<str>> {
        self.current.load().next_ca.clone()
    }

    /// TLS as the session API speaks it.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, ApiTlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(AnyKey { provider: Arc::clone(&provider) });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| ApiTlsError::Make(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(self))));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Agents come once a day: remembering them would only cost memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl Current {
    fn is_due(&self, server_name: &str, now: u64) -> bool {
        self.not_after < now.saturating_add(RENEW_BEFORE.as_secs())
            || !self.names.iter().any(|name| name == server_name)
    }
}

fn memory_leaf(ca: &MemoryCa, server_name: &str, now: u64) -> Result<Current, ApiTlsError> {
    let (certificate, key) = make_leaf(&ca.key, server_name, now)?;
    let path = Path::new("(made at start)");
    current(path, &certificate, &key, Some(&ca.certificate), None)
}

fn refresh_folder(folder: &Path, server_name: &str, now: u64) -> Result<Current, ApiTlsError> {
    let path = |name: &str| folder.join(name);
    let (crt, key) = (read(&path("tls.crt"))?, read(&path("tls.key"))?);
    let ca = read(&path("ca.crt"))?;
    let ca_key = read(&path("ca.key"))?;
    let next_ca = read(&path("next-ca.crt"))?;
    let next_ca = next_ca.as_deref().map(String::as_str);

    let served = match (&crt, &key) {
        (Some(crt), Some(key)) => {
            Some(current(&path("tls.crt"), crt, key, ca.as_deref().map(String::as_str), next_ca))
        }
        _ => None,
    };
    match (served, &ca_key) {
        // Theirs: served as it is, even when it is about to expire, since only they can renew it.
        (Some(served), None) => return served,
        (Some(Ok(served)), Some(_)) if !served.is_due(server_name, now) => return Ok(served),
        _ => {}
    }
    make_folder(folder)?;
    let (ca, ca_key) = match (ca, ca_key) {
        (Some(ca), Some(ca_key)) => (ca, ca_key),
        (None, None) if crt.is_none() && key.is_none() => {
            let (ca, ca_key) = make_ca(now)?;
            write_private(&path("ca.key"), &ca_key)?;
            write_private(&path("ca.crt"), &ca)?;
            (Zeroizing::new(ca), ca_key)
        }
        _ => {
            return Err(ApiTlsError::Content {
                path: folder.to_owned(),
                reason: "some of tls.crt, tls.key, ca.crt and ca.key are missing: put the rest there, or empty the \
                         folder and let new ones be made (agents then have to join anew)"
                    .to_owned(),
            });
        }
    };
    let (crt, key) = make_leaf(&ca_key, server_name, now)?;
    // The key first: between the two writes the pair does not match, and the last good one is served on.
    write_private(&path("tls.key"), &key)?;
    write_private(&path("tls.crt"), &crt)?;
    current(&path("tls.crt"), &crt, &key, Some(&ca), next_ca)
}

fn current(
    path: &Path,
    crt: &str,
    key: &str,
    ca: Option<&str>,
    next_ca: Option<&str>,
) -> Result<Current, ApiTlsError> {
    let wrong = |reason: String| ApiTlsError::Content { path: path.to_owned(), reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(crt.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("no PEM certificate can be read: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|error| wrong(format!("its key beside it cannot be read: {error}")))?;
    let leaf = chain.first().ok_or_else(|| wrong("there is no certificate in it".to_owned()))?;
    let (not_after, names) = facts(leaf).ok_or_else(|| wrong("the certificate cannot be read".to_owned()))?;
    let mut digest = Sha256::new();
    for text in [Some(crt), ca, next_ca] {
        digest.update(Sha256::digest(text.unwrap_or_default().as_bytes()));
    }
    let provider = aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| wrong(format!("certificate and key do not go together: {error}")))?;
    Ok(Current {
        certified: Arc::new(certified),
        ca: ca.map(Arc::from),
        next_ca: next_ca.map(Arc::from),
        digest: digest.finalize().into(),
        not_after,
        names,
    })
}

fn facts(der: &[u8]) -> Option<(u64, Vec<String>)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let not_after = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten().map(|extension| {
        let names = extension.value.general_names.iter();
        names
            .filter_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect()
    });
    Some((not_after, names.unwrap_or_default()))
}

/// Always the same, so that a certificate can be signed with the CA's key alone.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Latchkey session API CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn make_ca(now: u64) -> Result<(String, Zeroizing<String>), ApiTlsError> {
    let key = KeyPair::generate().map_err(|error| make_error(&error))?;
    let mut params = ca_params();
    set_life(&mut params, now, CA_LIFE);
    let certificate = params.self_signed(&key).map_err(|error| make_error(&error))?;
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

fn make_leaf(ca_key: &str, server_name: &str, now: u64) -> Result<(String, Zeroizing<String>), ApiTlsError> {
    let ca_key = KeyPair::from_pem(ca_key).map_err(|error| make_error(&error))?;
    let issuer = Issuer::new(ca_params(), ca_key);
    let key = KeyPair::generate().map_err(|error| make_error(&error))?;
    let mut params =
        CertificateParams::new(vec![server_name.to_owned()]).map_err(|error| make_error(&error))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Latchkey session API");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_life(&mut params, now, LEAF_LIFE);
    let certificate = params.signed_by(&key, &issuer).map_err(|error| make_error(&error))?;
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

fn make_error(error: &rcgen::Error) -> ApiTlsError {
    ApiTlsError::Make(error.to_string())
}

fn set_life(params: &mut CertificateParams, now: u64, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now);
    // A day back, for agents whose clock is slow.
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now.saturating_add(life);
}

fn now_unix() -> u64 {
    clock::unix().as_secs()
}

/// Reads a file; `None` when there is none.
fn read(path: &Path) -> Result<Option<Zeroizing<String>>, ApiTlsError> {
    use io::Read as _;
    let file_error = |source| ApiTlsError::File { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(file_error)?,
    };
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(MAX_PEM_BYTES).read_to_string(&mut text).map_err(file_error)?;
    Ok(Some(text))
}

fn make_folder(folder: &Path) -> Result<(), ApiTlsError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| ApiTlsError::File { path: folder.to_owned(), source })
}

/// Writes a file beside and renames it, so that nobody ever reads half of it.
fn write_private(path: &Path, text: &str) -> Result<(), ApiTlsError> {
    use io::Write as _;
    let beside = path.with_extension(format!("new{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || -> io::Result<()> {
        let mut file = options.open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| ApiTlsError::File { path: path.to_owned(), source })
}

struct Resolver(Arc<ApiIdentity>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.load().certified))
    }
}

/// Takes any client certificate whose key is proved by the handshake. Who that key belongs to is for the route
/// table to say; names, dates and signatures inside the certificate count for nothing.
#[derive(Debug)]
struct AnyKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[RustlsName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        client_key(end_entity)
            .map(|_| ClientCertVerified::assertion())
            .ok_or(TlsError::InvalidCertificate(rustls::CertificateError::BadEncoding))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// SHA-256 of the `SubjectPublicKeyInfo` of a certificate.
pub fn client_key(der: &[u8]) -> Option<Fingerprint> {
    if der.len() > MAX_CLIENT_CERTIFICATE {
        return None;
    }
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    Some(Fingerprint::from_bytes(Sha256::digest(certificate.public_key().raw).into()))
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
