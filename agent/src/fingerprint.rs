//! `latchkey-agent fingerprint`: what to compare with what a browser shows.

use std::fmt::Write;
use std::time::SystemTime;

use crate::certificates::{CertificateFacts, CertificateSource, Files, SelfSigned};
use crate::settings::{CertificateArgs, CertificateKind};
use crate::state_folder::StateFolder;

/// The certificate that visitors see, as text.
pub fn fingerprint(certificate: &CertificateArgs, folder: &StateFolder) -> Result<String, String> {
    let facts = match (certificate.kind(), &certificate.cert, &certificate.key) {
        (CertificateKind::Files, Some(cert), Some(key)) => Files::new(cert, key)
            .chain(&[], SystemTime::now())
            .and_then(|chain| chain.map(|chain| CertificateFacts::of_chain(&chain)).transpose()),
        (CertificateKind::Files, ..) => return Err("--certificate files needs --cert and --key".into()),
        (CertificateKind::SelfSigned, ..) => SelfSigned::kept(folder),
    };
    let facts = facts.map_err(|error| error.to_string())?.ok_or_else(|| {
        format!(
            "there is no certificate in {} yet: the agent makes it when it starts in terminate mode (is --state the \
             same as the agent's?)",
            folder.path_of("").display()
        )
    })?;
    let mut text = String::new();
    let _ = writeln!(text, "SHA-256 fingerprint  {}", facts.fingerprint_as_browsers_show_it());
    let _ = writeln!(text, "public key SHA-256   {}", facts.public_key_sha256);
    let _ = writeln!(text, "names                {}", facts.names.join(", "));
    let _ = writeln!(text, "issuer               {}", facts.issuer);
    let _ = writeln!(text, "expires              {}", facts.not_after);
    Ok(text)
}
