//! The certificates of a control plane, made for one run.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SanType,
};

use crate::ClusterError;

/// Writes `ca.crt`, the server's and the administrator's certificates and keys, and the keys of tokens.
pub(crate) fn write(folder: &Path) -> Result<(), ClusterError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[(DnType::CommonName, "latchkey-test-ca")]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    save(folder, "ca.crt", &ca.pem())?;

    let mut server = CertificateParams::default();
    server.distinguished_name = name(&[(DnType::CommonName, "kube-apiserver")]);
    server.subject_alt_names =
        vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)), SanType::DnsName("localhost".try_into()?)];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf(folder, "server", &server, &ca)?;

    let mut admin = CertificateParams::default();
    admin.distinguished_name =
        name(&[(DnType::OrganizationName, "system:masters"), (DnType::CommonName, "latchkey-tests")]);
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    leaf(folder, "admin", &admin, &ca)?;

    let tokens = KeyPair::generate()?;
    save(folder, "tokens.key", &tokens.serialize_pem())?;
    save(folder, "tokens.pub", &tokens.public_key_pem())
}

fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind.clone(), *value);
    }
    name
}

fn leaf(
    folder: &Path,
    name: &str,
    params: &CertificateParams,
    ca: &CertifiedIssuer<'_, KeyPair>,
) -> Result<(), ClusterError> {
    let key = KeyPair::generate()?;
    save(folder, &format!("{name}.crt"), &params.signed_by(&key, ca)?.pem())?;
    save(folder, &format!("{name}.key"), &key.serialize_pem())
}

fn save(folder: &Path, name: &str, text: &str) -> Result<(), ClusterError> {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(ClusterError::io(format!("writing {}", path.display())))
}
