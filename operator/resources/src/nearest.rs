//! What was meant by a misspelt word.

/// Words further apart than this share of their length are different words.
const DISTANT: f64 = 0.7;

/// The nearest of the known words, as advice, if one is near.
pub fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    // The measure is quadratic; no word that people write is this long.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let near =
        |known: &'a str| (strsim::normalized_damerau_levenshtein(&lower, &known.to_lowercase()), known);
    let (likeness, nearest) = known.map(near).max_by(|one, two| one.0.total_cmp(&two.0))?;
    // `whitelist` for `allowNetworks` is no misspelling; `network` for `denyNetworks` is half of it.
    let part = lower.len() >= 4 && nearest.to_lowercase().contains(&lower);
    (likeness >= DISTANT || part).then(|| format!("did you mean `{nearest}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_are_known_and_other_words_are_not() {
        let known =
            ["enabled", "hostname", "customDomains", "acceptedBlocks", "allowNetworks", "denyNetworks"];
        for (word, meant) in [
            ("enable", Some("enabled")),
            ("hostName", Some("hostname")),
            ("custom_domains", Some("customDomains")),
            ("acceptBlocks", Some("acceptedBlocks")),
            ("domains", Some("customDomains")),
            ("replicas", None),
            ("", None),
        ] {
            let found = did_you_mean(word, known.into_iter());
            assert_eq!(found, meant.map(|meant| format!("did you mean `{meant}`?")), "{word}");
        }
        assert_eq!(did_you_mean(&"x".repeat(10_000), known.into_iter()), None);
    }
}
