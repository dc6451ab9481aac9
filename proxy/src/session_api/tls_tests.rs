use super::*;

const NAME: &str = "connect.ui.example.com";

fn chain_is_good(identity: &ApiIdentity, name: &str, at: u64) -> Result<(), TlsError> {
    use rustls::client::danger::ServerCertVerifier as _;
    let mut roots = rustls::RootCertStore::empty();
    let ca = identity.ca().unwrap();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(aws_lc_rs::default_provider()),
    )
    .build()
    .unwrap();
    let current = identity.current.load_full();
    let name = name.to_owned().try_into().unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    verifier.verify_server_cert(&current.certified.cert[0], &[], &name, &[], at).map(|_| ())
}

#[test]
fn an_empty_folder_is_filled_and_kept() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("api");
    let first = ApiIdentity::open(Some(&folder), NAME).unwrap();
    chain_is_good(&first, NAME, now_unix()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        for name in ["ca.key", "tls.key", "tls.crt", "ca.crt"] {
            assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
        }
    }
    let again = ApiIdentity::open(Some(&folder), NAME).unwrap();
    assert_eq!(again.current.load().digest, first.current.load().digest, "a restart makes nothing new");
    assert!(!again.refresh(NAME).unwrap());
}

#[test]
fn a_certificate_of_ours_is_renewed_in_time_under_the_same_ca() {
    let folder = tempfile::tempdir().unwrap();
    for identity in
        [ApiIdentity::open(Some(folder.path()), NAME).unwrap(), ApiIdentity::open(None, NAME).unwrap()]
    {
        let ca = identity.ca().unwrap();
        let in_59_days = now_unix() + 59 * DAY.as_secs();
        assert!(!identity.refresh_at(NAME, in_59_days).unwrap());
        let in_89_days = now_unix() + 89 * DAY.as_secs();
        assert!(identity.refresh_at(NAME, in_89_days).unwrap());
        assert_eq!(identity.ca().unwrap(), ca);
        chain_is_good(&identity, NAME, in_89_days + 80 * DAY.as_secs()).unwrap();
    }
}

#[test]
fn another_domain_gets_another_certificate() {
    let identity = ApiIdentity::open(None, NAME).unwrap();
    assert!(identity.refresh("connect.other.example").unwrap());
    chain_is_good(&identity, "connect.other.example", now_unix()).unwrap();
    assert!(chain_is_good(&identity, NAME, now_unix()).is_err());
}

#[test]
fn somebody_elses_certificate_is_read_again_and_never_replaced() {
    let (theirs, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = || {
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            fs::copy(theirs.path().join(name), folder.path().join(name)).unwrap();
        }
    };
    let source = ApiIdentity::open(Some(theirs.path()), NAME).unwrap();
    copy();
    let identity = ApiIdentity::open(Some(folder.path()), NAME).unwrap();
    let far = now_unix() + 400 * DAY.as_secs();
    assert!(!identity.refresh_at("connect.other.example", far).unwrap(), "not ours to renew");
    assert!(!folder.path().join("ca.key").exists());

    source.refresh_at(NAME, far).unwrap();
    fs::copy(theirs.path().join("tls.crt"), folder.path().join("tls.crt")).unwrap();
    let error = identity.refresh(NAME).unwrap_err().to_string();
    assert!(error.contains("do not go together"), "{error}");
    chain_is_good(&identity, NAME, now_unix()).unwrap();
    copy();
    assert!(identity.refresh(NAME).unwrap());
    chain_is_good(&identity, NAME, far).unwrap();

    assert_eq!(identity.next_ca(), None);
    fs::write(folder.path().join("next-ca.crt"), "PEM").unwrap();
    assert!(identity.refresh(NAME).unwrap());
    assert_eq!(identity.next_ca().as_deref(), Some("PEM"));
}

#[test]
fn half_a_folder_is_told_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tls.crt"), "mine").unwrap();
    let error = ApiIdentity::open(Some(folder.path()), NAME).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
    assert_eq!(fs::read_to_string(folder.path().join("tls.crt")).unwrap(), "mine");
}

#[test]
fn a_key_is_known_by_its_public_half_alone() {
    let key = KeyPair::generate().unwrap();
    let certificate = |name: &str| {
        CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    };
    let expected = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key));
    assert_eq!(client_key(&certificate("a")).unwrap().as_bytes()[..], expected[..]);
    assert_eq!(client_key(&certificate("a")), client_key(&certificate("b")));
    let mut longer = certificate("a");
    longer.push(0);
    assert_eq!(client_key(&longer), None);
    assert_eq!(client_key(b"junk"), None);
}

#[test]
fn nothing_secret_is_printed() {
    let shown = format!("{:?}", ApiIdentity::open(None, NAME).unwrap());
    assert!(!shown.contains("PRIVATE"), "{shown}");
}
