//! Texts from outside, made fit for a status.

/// At most so many characters, none of which moves a cursor or hides another.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    // Nearly always nothing is wrong with it. No text has more characters than bytes.
    if text.len() <= most && !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let plain = |each: char| if each.is_control() { char::REPLACEMENT_CHARACTER } else { each };
    text.chars().take(most).map(plain).collect()
}

/// `a, b and 7 more`: a list in a sentence, of bounded length.
pub(crate) fn listed(parts: impl ExactSizeIterator<Item = String>, most: usize) -> String {
    let count = parts.len();
    let mut shown: Vec<String> = parts.take(most).collect();
    if count > most {
        shown.push(format!("and {} more", count - most));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_plain() {
        assert_eq!(shortened("a\u{1b}[31mbcdef", 4), "a\u{fffd}[3");
        assert_eq!(listed(["a", "b", "c"].map(str::to_owned).into_iter(), 2), "a, b, and 1 more");
        assert_eq!(listed(["a", "b"].map(str::to_owned).into_iter(), 2), "a, b");
    }
}
