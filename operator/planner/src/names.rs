//! Names an installation gives: random ones, and labels that were asked for.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use route_table::{HostName, InstanceId, SESSION_LABEL};
use sha2::Sha256;

use crate::inventory::{Seed, Settings};

/// What stands in front of a verification value, so that a person who finds the record knows what it is for.
const VERIFICATION_PREFIX: &str = "latchkey-verification=";

/// The label in front of a custom domain where its TXT record belongs.
const VERIFICATION_LABEL: &str = "_latchkey";

/// Bytes of an HMAC that become a name: 160 bits, 32 characters.
const NAME_BYTES: usize = 20;

/// Characters of a random label.
const RANDOM_LABEL_LENGTH: usize = NAME_BYTES * 8 / 5;

/// RFC 4648's alphabet in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Derives names from the seed. The key is prepared once, since a plan makes a name for every instance.
#[derive(Clone)]
pub(crate) struct NameMaker(Hmac<Sha256>);

impl NameMaker {
    pub(crate) fn new(seed: &Seed) -> Self {
        // A key shorter than a block of SHA-256 is filled up with zeros; so says HMAC itself.
        let mut block = [0_u8; 64];
        for (to, from) in block.iter_mut().zip(seed.bytes()) {
            *to = *from;
        }
        Self(Hmac::new(&block.into()))
    }

    fn derive(&self, prefix: &str, id: &InstanceId) -> String {
        let mut mac = self.0.clone();
        mac.update(prefix.as_bytes());
        mac.update(id.as_str().as_bytes());
        base32(mac.finalize().into_bytes().iter().take(NAME_BYTES))
    }

    /// See [`random_label`].
    pub(crate) fn random_label(&self, id: &InstanceId) -> String {
        self.derive("", id)
    }

    /// See [`verification_value`].
    pub(crate) fn verification_value(&self, id: &InstanceId) -> String {
        // No id has a colon, so this is never anybody's random label.
        format!("{VERIFICATION_PREFIX}{}", self.derive("verification:", id))
    }
}

/// The label that an instance always has: base32 (RFC 4648, lower case, 32 characters) of the first 160 bits of
/// HMAC-SHA256(seed, `namespace/name`). A restore with the same seed gives it back.
pub fn random_label(seed: &Seed, id: &InstanceId) -> String {
    NameMaker::new(seed).random_label(id)
}

/// What the TXT record of each of an instance's custom domains must hold.
pub fn verification_value(seed: &Seed, id: &InstanceId) -> String {
    NameMaker::new(seed).verification_value(id)
}

/// The name of the TXT record that proves a custom domain.
pub fn verification_name(domain: &HostName) -> String {
    format!("{VERIFICATION_LABEL}.{domain}")
}

/// Five bits a character, so no padding at whole multiples of five bytes.
fn base32<'a>(bytes: impl Iterator<Item = &'a u8>) -> String {
    let (mut text, mut bits, mut count) = (String::with_capacity(RANDOM_LABEL_LENGTH), 0_u16, 0);
    for byte in bytes {
        bits = (bits << 8) | u16::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            let digit = usize::from((bits >> count) & 31);
            text.push(ALPHABET.get(digit).copied().map_or('a', char::from));
        }
        bits &= (1 << count) - 1;
    }
    text
}

/// A label as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AskedLabel {
    /// Could be had.
    Claimed(HostName),
    /// Nobody gets it.
    Refused {
        /// As far as it can be told as a name.
        name: String,
        /// Why, and what to do.
        why: String,
    },
}

/// Reads the label an instance asks for.
///
/// | label | outcome |
/// |---|---|
/// | letters, digits and hyphens, at most 63, in any case | claimed, in lower case |
/// | in another script | refused: write punycode |
/// | with a dot, a star, or anything else that is no label | refused, with the reason |
/// | `connect`, or one the installation reserves | refused |
/// | 32 characters of a-z and 2-7 | refused: it could be an instance's random label |
pub(crate) fn read_label(settings: &Settings, asked: &str) -> AskedLabel {
    let shown: String = asked.chars().filter(|each| !each.is_control()).take(63).collect();
    let label = asked.to_ascii_lowercase();
    let refused =
        |why: String| AskedLabel::Refused { name: format!("{shown}.{}", settings.spec.domain), why };
    if label.contains('.') {
        return refused(format!(
            "{shown:?} has a dot; spec.hostname is one label below {}, and names elsewhere belong into spec.customDomains",
            settings.spec.domain
        ));
    }
    let name = match settings.spec.domain.with_label(&label) {
        Ok(name) => name,
        Err(error) => return refused(error.to_string()),
    };
    let reserved = |each: &String| each.eq_ignore_ascii_case(&label);
    if label == SESSION_LABEL || settings.spec.reserved_labels.iter().any(reserved) {
        return refused(format!("{label} is reserved by the installation; choose another label"));
    }
    if looks_random(&label) {
        return refused(format!(
            "{label} could be the random name of an instance (32 characters of a-z and 2-7); choose another label"
        ));
    }
    AskedLabel::Claimed(name)
}

/// Could it be somebody's random label? Forbidding the shape spares looking for the somebody.
pub(crate) fn looks_random(label: &str) -> bool {
    label.len() == RANDOM_LABEL_LENGTH && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}

/// `https://NAME`, with the port where it is not the usual one.
pub(crate) fn url(settings: &Settings, name: &HostName) -> String {
    let mut url = String::with_capacity(name.as_str().len() + 14);
    url.push_str("https://");
    url.push_str(name.as_str());
    if settings.spec.public_port != 443 {
        // Writing into a String cannot fail.
        let _ = write!(url, ":{}", settings.spec.public_port);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{id, settings};

    /// Computed with Python's hmac and base64 modules.
    #[test]
    fn a_random_label_is_base32_of_the_hmac() {
        let seed = Seed::new([7; 32]);
        assert_eq!(random_label(&seed, &id("homes/lake-house")), "met4co26cunebg6tkxjs6zlu5nzxv5n2");
        assert_eq!(
            verification_value(&seed, &id("homes/lake-house")),
            "latchkey-verification=l6saymp2ozwnh2k4t23c62p2emy2uqdb"
        );
        assert_ne!(
            random_label(&Seed::new([8; 32]), &id("homes/lake-house")),
            "met4co26cunebg6tkxjs6zlu5nzxv5n2"
        );
    }

    #[test]
    fn a_random_label_is_a_dns_label_nobody_can_ask_for() {
        let settings = settings();
        let label = random_label(&settings.seed, &id("homes/lake-house"));
        assert_eq!(label.len(), 32);
        assert!(settings.spec.domain.with_label(&label).is_ok());
        assert!(matches!(read_label(&settings, &label), AskedLabel::Refused { .. }));
        assert!(matches!(read_label(&settings, &label.to_uppercase()), AskedLabel::Refused { .. }));
    }

    #[test]
    fn labels_row_by_row() {
        let mut settings = settings();
        settings.spec.reserved_labels = vec!["Admin".to_owned()];
        for (asked, name) in
            [("lake-house", "lake-house"), ("Lake", "lake"), ("xn--bcher-kva", "xn--bcher-kva")]
        {
            let name = settings.spec.domain.with_label(name).unwrap();
            assert_eq!(read_label(&settings, asked), AskedLabel::Claimed(name));
        }
        for (asked, reason) in [
            ("bücher", "punycode"),
            ("a.b", "customDomains"),
            ("*", "wildcards"),
            ("", "empty"),
            ("a_b", "underscore"),
            (&"a".repeat(64), "63"),
            ("connect", "reserved"),
            ("Connect", "reserved"),
            ("admin", "reserved"),
            ("abcdefghijklmnopqrstuvwxyz234567", "random name"),
        ] {
            let AskedLabel::Refused { why, .. } = read_label(&settings, asked) else {
                panic!("{asked} is claimed");
            };
            assert!(why.contains(reason), "{asked}: {why}");
        }
    }

    #[test]
    fn urls_name_the_port_only_where_it_is_not_the_usual_one() {
        let mut settings = settings();
        let name: HostName = "lake.ui.example.com".parse().unwrap();
        assert_eq!(url(&settings, &name), "https://lake.ui.example.com");
        settings.spec.public_port = 8443;
        assert_eq!(url(&settings, &name), "https://lake.ui.example.com:8443");
    }
}
