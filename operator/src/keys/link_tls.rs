//! TLS of the operator's end of the link. Its certificate lives in this process alone; authorities and certificate change
//! under connections that stay.

use std::sync::Arc;

use arc_swap::ArcSwap;
use planner::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::KeysError;
use super::authority::Authority;
use super::certificates::{Pair, Purpose};
use super::proxy_files::leaf;
use super::rotation::Lives;
use crate::names::Names;
use crate::publish::{ServerTls, server_config};

/// TLS for the next handshake.
pub(crate) struct LinkTls(ArcSwap<ServerConfig>);

impl ServerTls for LinkTls {
    fn config(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

/// What the settings were made of.
pub(crate) struct Identity {
    pair: Pair,
    trusted: String,
    /// When to look again.
    pub(crate) again: Timestamp,
}

impl Identity {
    /// The identity from now on: as it was, as far as that is good enough.
    pub(crate) fn next(
        before: Option<&Self>,
        authority: &Authority,
        names: &Names,
        lives: &Lives,
        now: Timestamp,
    ) -> Result<Self, KeysError> {
        let known = before.map(|before| before.pair.clone());
        let names = service_names(names);
        let (pair, again) = leaf(known, authority, Purpose::Server, &names, lives.link, now)?;
        Ok(Self { pair, trusted: authority.trusted(), again })
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.pair == other.pair && self.trusted == other.trusted
    }

    fn config(&self) -> Result<ServerConfig, KeysError> {
        let unfit = |error: &dyn std::fmt::Display| KeysError::Unfit(error.to_string());
        let key = PrivateKeyDer::from_pem_slice(self.pair.key.as_bytes()).map_err(|error| unfit(&error))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.pair.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| unfit(&error))?;
        let provider = aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| unfit(&error))?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.trusted.as_bytes()) {
            let authority = authority.map_err(|error| unfit(&error))?;
            roots.add(authority).map_err(|error| unfit(&error))?;
        }
        server_config(Arc::new(Always(Arc::new(key))), roots).map_err(|error| unfit(&error))
    }
}

impl LinkTls {
    pub(crate) fn new(identity: &Identity) -> Result<Self, KeysError> {
        Ok(Self(ArcSwap::from_pointee(identity.config()?)))
    }

    pub(crate) fn change(&self, identity: &Identity) -> Result<(), KeysError> {
        self.0.store(Arc::new(identity.config()?));
        Ok(())
    }
}

/// The forms of the operators' headless Service under which they are dialled.
fn service_names(names: &Names) -> Vec<String> {
    let (service, namespace) = (names.operator_service(), &names.namespace);
    vec![
        service.clone(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("*.{service}.{namespace}.svc"),
    ]
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
