//! Names that nobody can write by hand, as placeholders: `<random:homes/lake-house>`, `<key:front-door>`.

use hmac::{Hmac, KeyInit, Mac};
use route_table::Fingerprint;
use sha2::{Digest, Sha256};

/// The seed of every scenario's installation.
pub const SEED: [u8; 32] = *b"scenarios know their random name";

/// Letters of a random name, in the order of their value.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// How long a random name is.
const LABEL_LENGTH: usize = 32;

/// The random name of an instance: base32 of the HMAC of its id under the seed. Written down here once more, and not
/// taken from the planner: a name that changes with a release would change the address of everybody.
pub fn random_label(seed: &[u8; 32], id: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(seed) else { return String::new() };
    mac.update(id.as_bytes());
    let digest = mac.finalize().into_bytes();
    let mut bits = digest.iter().flat_map(|byte| (0..8).rev().map(move |bit| usize::from(byte >> bit & 1)));
    std::iter::from_fn(|| {
        let value = (0..5).try_fold(0, |value, _| bits.next().map(|bit| value * 2 + bit))?;
        BASE32.get(value).copied().map(char::from)
    })
    .take(LABEL_LENGTH)
    .collect()
}

/// A fingerprint that belongs to a word.
fn fingerprint(word: &str) -> String {
    Fingerprint::from_bytes(Sha256::digest(word.as_bytes()).into()).to_string()
}

/// A placeholder in a text.
struct Placeholder<'t> {
    whole: &'t str,
    word: &'t str,
    argument: &'t str,
}

/// The next `<word:argument>` and what stands before and behind it.
fn next(text: &str) -> Option<(&str, Placeholder<'_>, &str)> {
    let mut from = 0;
    while let Some(found) = text.get(from..)?.find('<') {
        let begin = from + found;
        let inside = text.get(begin + 1..)?;
        let end = inside.find(['>', '<', '\n', ' ']).unwrap_or(inside.len());
        if let (Some(body), true) = (inside.get(..end), inside.get(end..)?.starts_with('>'))
            && let Some((word, argument)) = body.split_once(':')
            && !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_lowercase())
        {
            let whole = text.get(begin..begin + 1 + end + 1)?;
            return Some((text.get(..begin)?, Placeholder { whole, word, argument }, inside.get(end + 1..)?));
        }
        from = begin + 1;
    }
    None
}

/// Puts names for placeholders. `<verification:...>` stays: only a status tells it.
pub(crate) fn expand(text: &str) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, placeholder, behind)) = next(rest) {
        expanded.push_str(before);
        match placeholder.word {
            "random" => expanded.push_str(&random_label(&SEED, placeholder.argument)),
            "key" => expanded.push_str(&fingerprint(placeholder.argument)),
            "verification" => expanded.push_str(placeholder.whole),
            _ => {
                return Err(format!(
                    "{} is no placeholder: there are <random:namespace/name>, <key:word> and, in dns, \
                     <verification:namespace/name>",
                    placeholder.whole
                ));
            }
        }
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Puts what `tell` says for every `<verification:instance>`.
pub(crate) fn expand_verification(
    text: &str,
    tell: impl Fn(&str) -> Result<String, String>,
) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, placeholder, behind)) = next(rest) {
        expanded.push_str(before);
        expanded.push_str(&tell(placeholder.argument)?);
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Puts placeholders for names again, so that a person can read what came.
pub(crate) fn fold<'i>(text: &str, ids: impl Iterator<Item = &'i str>) -> String {
    ids.fold(text.to_owned(), |text, id| text.replace(&random_label(&SEED, id), &format!("<random:{id}>")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_name_is_what_it_always_was() {
        // Made with: openssl dgst -sha256 -mac hmac -macopt key:'scenarios know their random name' -binary | base32
        let label = random_label(&SEED, "homes/lake-house");
        assert_eq!(label.len(), 32);
        assert_eq!(label, "6pgqvew7a6watpuo6t4ugazusfke3czm");
    }

    #[test]
    fn placeholders_are_expanded_and_the_rest_stays() {
        let label = random_label(&SEED, "homes/a");
        assert_eq!(expand("x <random:homes/a>.ui y").unwrap(), format!("x {label}.ui y"));
        for text in ["<=2021.1.4", "a < b: c > d", "<<random>", "<verification:homes/a>", "1 <"] {
            assert_eq!(expand(text).unwrap(), text);
        }
        assert_eq!(expand("<key:a>").unwrap().len(), 64);
        assert!(expand("<randm:homes/a>").unwrap_err().contains("<randm:homes/a> is no placeholder"));
        let told = expand_verification("TXT <verification:homes/a>!", |id| Ok(id.to_uppercase()));
        assert_eq!(told.unwrap(), "TXT HOMES/A!");
        assert_eq!(
            fold(&format!("https://{label}.ui"), ["homes/a"].into_iter()),
            "https://<random:homes/a>.ui"
        );
    }
}
