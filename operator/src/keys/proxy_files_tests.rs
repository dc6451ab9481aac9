use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::link_tls::{Identity, LinkTls};
use super::super::rotation::Step;
use super::super::secrets::Stored;
use super::*;
use crate::names::Names;
use crate::publish::ServerTls as _;

const HOUR: i64 = 3_600;

/// The installation's secrets, as they become over time.
struct Story {
    authority: Authority,
    files: Data,
    host: HostName,
    identity: Option<Identity>,
    now: Timestamp,
    lives: Lives,
}

impl Story {
    fn new() -> Self {
        let (lives, now) = (Lives::default(), Timestamp(1_795_255_200));
        let authority = Authority::read(&Stored::of(Authority::first(&lives, now).unwrap())).unwrap();
        let host = "connect.ui.example.com".parse().unwrap();
        let mut story = Self { authority, files: Data::new(), host, identity: None, now, lives };
        assert!(story.look());
        story
    }

    /// Brings everything up to date. Did the files change?
    fn look(&mut self) -> bool {
        let whom = For { proxies: "latchkey-default-proxy", session_host: Some(&self.host) };
        let (files, again) = wanted(&self.files, &self.authority, &whom, &self.lives, self.now).unwrap();
        assert!(again > self.now);
        let before = self.identity.as_ref();
        let identity = Identity::next(before, &self.authority, &names(), &self.lives, self.now).unwrap();
        assert!(identity.again > self.now);
        self.identity = Some(identity);
        let changed = files != self.files;
        self.files = files;
        changed
    }

    fn step(&mut self, step: Step) {
        let data = self.authority.after(step, &self.lives, self.now).unwrap();
        self.authority = Authority::read(&Stored::of(data)).unwrap();
        assert!(self.look());
    }

    fn file(&self, name: &str) -> String {
        String::from_utf8(self.files[name].to_vec()).unwrap()
    }

    /// Does a proxy with these files get through to the operator as it is now?
    async fn reaches(&self, files: &Data) -> Result<(), String> {
        let file = |name: &str| String::from_utf8(files[name].to_vec()).unwrap();
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(file("trust.crt").as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let chain = vec![CertificateDer::from_pem_slice(file("link.crt").as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(file("link.key").as_bytes()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let server = LinkTls::new(self.identity.as_ref().unwrap()).unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let name = "pod-1.latchkey-default-operator.latchkey.svc".try_into().unwrap();
        let dialled = TlsConnector::from(Arc::new(client)).connect(name, theirs);
        let (accepted, dialled) = tokio::join!(TlsAcceptor::from(server.config()).accept(ours), dialled);
        accepted.map_err(|error| error.to_string())?;
        dialled.map(|_| ()).map_err(|error| error.to_string())
    }
}

fn names() -> Names {
    Names { namespace: "latchkey".to_owned(), installation: "default".to_owned() }
}

fn certificates_in(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn what_is_good_stays_and_each_is_renewed_in_its_time() {
    let mut story = Story::new();
    assert!(!story.look());
    let facts = certificates::read(&story.file("link.crt")).unwrap();
    assert_eq!((facts.names.len(), facts.names[63].as_str()), (64, "latchkey-default-proxy-63"));
    let (link, session) = (story.file("link.crt"), story.file("tls.crt"));
    story.now = story.now.plus_seconds(16 * HOUR - 1);
    assert!(!story.look());
    story.now = story.now.plus_seconds(1);
    assert!(story.look());
    assert!(story.file("link.crt") != link && story.file("tls.crt") == session);
    story.host = "connect.other.example.com".parse().unwrap();
    assert!(story.look());
    let facts = certificates::read(&story.file("tls.crt")).unwrap();
    assert_eq!(facts.names, ["connect.other.example.com"]);
    let files: Vec<&str> = story.files.keys().map(String::as_str).collect();
    assert_eq!(files, ["ca.crt", "link.crt", "link.key", "tls.crt", "tls.key", "trust.crt"]);
}

#[test]
fn without_a_domain_the_session_api_keeps_what_it_has() {
    let mut story = Story::new();
    let before = story.file("tls.crt");
    let whom = For { proxies: "latchkey-default-proxy", session_host: None };
    story.now = story.now.plus_seconds(365 * 24 * HOUR);
    let (files, _) = wanted(&story.files, &story.authority, &whom, &story.lives, story.now).unwrap();
    assert_eq!(*files["tls.crt"], before.into_bytes());
    let (files, _) = wanted(&Data::new(), &story.authority, &whom, &story.lives, story.now).unwrap();
    assert!(!files.contains_key("tls.crt") && !files.contains_key("ca.crt"));
}

#[tokio::test]
async fn nobody_is_shut_out_while_the_authority_changes() {
    let mut story = Story::new();
    let at_first = story.files.clone();
    story.reaches(&at_first).await.unwrap();

    story.step(Step::MakeNext);
    let announced = story.files.clone();
    assert_eq!(certificates_in(&story.file("trust.crt")), 2);
    assert!(announced["link.crt"] == at_first["link.crt"] && announced["tls.crt"] == at_first["tls.crt"]);
    assert!(announced["ca.crt"] == at_first["ca.crt"] && announced["next-ca.crt"] != announced["ca.crt"]);
    for files in [&at_first, &announced] {
        story.reaches(files).await.unwrap();
    }

    story.step(Step::UseNext);
    let switched = story.files.clone();
    assert_eq!(switched["ca.crt"], announced["next-ca.crt"]);
    assert!(!switched.contains_key("next-ca.crt") && certificates_in(&story.file("trust.crt")) == 2);
    assert!(switched["link.crt"] != announced["link.crt"] && switched["tls.crt"] != announced["tls.crt"]);
    for files in [&announced, &switched] {
        story.reaches(files).await.unwrap();
    }
    story.reaches(&at_first).await.unwrap_err();

    story.step(Step::ForgetPrevious);
    assert_eq!(certificates_in(&story.file("trust.crt")), 1);
    story.reaches(&story.files).await.unwrap();
    story.reaches(&announced).await.unwrap_err();
}

#[test]
fn a_secret_that_was_tampered_with_is_named() {
    let story = Story::new();
    let first = || Authority::first(&story.lives, story.now).unwrap();
    let other_key = first()["ca.key"].clone();
    let cases: [(&str, Option<Zeroizing<Vec<u8>>>); 4] = [
        ("ca.crt", None),
        ("ca.key", None),
        ("ca.key", Some(other_key)),
        ("ca.key", Some(value("nonsense"))),
    ];
    for (key, instead) in cases {
        let mut data = first();
        match instead {
            Some(instead) => data.insert(key.to_owned(), instead),
            None => data.remove(key),
        };
        let error = Authority::read(&Stored::of(data)).err().unwrap().to_string();
        assert!(error.contains(key) && !error.contains("nonsense"), "{error}");
    }
}
