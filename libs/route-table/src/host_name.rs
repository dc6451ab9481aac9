//! Names visitors ask for.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest host name, in its textual form without the trailing dot.
pub const MAX_HOST_NAME_LENGTH: usize = 253;

/// Longest label of a host name.
const MAX_LABEL_LENGTH: usize = 63;

/// A DNS host name in lower case without a trailing dot: labels of letters, digits and hyphens, names in other
/// scripts as punycode (`xn--...`). Cloning shares the text; a `&str` finds it in a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Arc<str>);

/// Why a text is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a host name: {why}")]
pub struct HostNameError {
    text: String,
    why: &'static str,
}

impl HostName {
    /// The name, lower case, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is this name the other one or somewhere below it?
    pub fn is_at_or_below(&self, parent: &HostName) -> bool {
        self.as_str()
            .strip_suffix(parent.as_str())
            .is_some_and(|front| front.is_empty() || front.ends_with('.'))
    }

    /// This name with one more label in front.
    pub fn with_label(&self, label: &str) -> Result<HostName, HostNameError> {
        let mut name = String::with_capacity(label.len() + 1 + self.0.len());
        name.push_str(label);
        name.push('.');
        name.push_str(&self.0);
        name.parse()
    }
}

/// Looks a name up the way it was asked for, in any case and with or without the trailing dot. `find` gets it in
/// the form of a [`HostName`]. Nothing is allocated.
pub(crate) fn with_lookup_form<T>(asked: &str, find: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let name = asked.strip_suffix('.').unwrap_or(asked);
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return find(name);
    }
    let mut buffer = [0_u8; MAX_HOST_NAME_LENGTH];
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    find(std::str::from_utf8(lower).ok()?)
}

/// Is it a name in lower case with nothing wrong, as nearly all are? Tells that [`fault`] finds nothing and that
/// nothing has to be written otherwise, in one go: names are read by the hundred thousand.
fn is_plain(name: &str) -> bool {
    let (mut length, mut numeric, mut last) = (0, true, b'.');
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' => (length, numeric) = (length + 1, false),
            b'0'..=b'9' => length += 1,
            b'-' if last != b'.' => (length, numeric) = (length + 1, false),
            b'.' if last != b'.' && last != b'-' => (length, numeric) = (0, true),
            _ => return false,
        }
        if length > MAX_LABEL_LENGTH {
            return false;
        }
        last = byte;
    }
    !numeric && last != b'.' && last != b'-' && name.len() <= MAX_HOST_NAME_LENGTH
}

/// What is wrong with a name, if anything.
fn fault(name: &str) -> Option<&'static str> {
    let of_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.is_empty() {
        Some("it is empty")
    } else if name.contains('*') {
        Some("wildcards are not served; list every name")
    } else if !name.is_ascii() {
        Some("write names in other scripts as punycode (xn--...)")
    } else if name.len() > MAX_HOST_NAME_LENGTH {
        Some("it is longer than 253 characters")
    } else if name.split('.').any(str::is_empty) {
        Some("it has an empty label (two dots in a row, or a dot in front)")
    } else if name.split('.').any(|label| label.len() > MAX_LABEL_LENGTH) {
        Some("a label is longer than 63 characters")
    } else if !name.split('.').flat_map(str::bytes).all(of_label) {
        Some("labels are made of letters, digits and hyphens; no scheme, port, path or underscore")
    } else if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
        Some("a label begins or ends with a hyphen")
    } else if name.split('.').next_back().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        Some("its last label is a number; visitors are routed by name, never by IP address")
    } else {
        None
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if is_plain(name) {
            return Ok(Self(name.into()));
        }
        match fault(name) {
            None => Ok(Self(name.to_ascii_lowercase().into())),
            Some(why) => Err(HostNameError { text: text.chars().take(MAX_HOST_NAME_LENGTH).collect(), why }),
        }
    }
}

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_without_the_last_dot() {
        for (text, name) in [
            ("Lake-House.UI.example.com.", "lake-house.ui.example.com"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1.2.3.com", "1.2.3.com"),
        ] {
            assert_eq!(text.parse::<HostName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long = format!("{}com", "abc.".repeat(63));
        for (text, reason) in [
            ("", "empty"),
            (".", "empty"),
            ("*.example.com", "wildcards"),
            ("bücher.example", "punycode"),
            (&long, "253"),
            (&long_label, "63"),
            ("a..b", "empty label"),
            (".a", "empty label"),
            ("a.b..", "empty label"),
            ("https://a.example", "no scheme"),
            ("a.example:443", "no scheme"),
            ("a_b.example", "underscore"),
            ("-a.example", "hyphen"),
            ("a-.example", "hyphen"),
            ("192.0.2.7", "IP address"),
            ("a b.example", "letters"),
        ] {
            let message = text.parse::<HostName>().unwrap_err().to_string();
            assert!(message.contains(reason), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_plain_name_is_one_with_nothing_wrong_and_nothing_to_change() {
        let expected = |name: &str| fault(name).is_none() && name.to_ascii_lowercase() == name;
        let assert_told = |name: &str| assert_eq!(is_plain(name), expected(name), "{name:?}");
        let letters = ["a", "7", "-", ".", "A", "_", "*", "ü"];
        let mut all = vec![String::new()];
        for _ in 0..5 {
            let longer = |name: &String| letters.map(|letter| format!("{name}{letter}"));
            all = all.iter().flat_map(longer).chain([String::new()]).collect();
            for name in &all {
                assert_told(name);
            }
        }
        for (label, labels) in [(63, 1), (64, 1), (62, 4), (63, 4)] {
            let name = vec!["a".repeat(label); labels].join(".");
            for name in [&name, &format!("{name}a"), &format!("{name}.a"), &format!("{name}.aa")] {
                assert_told(name);
            }
        }
    }

    #[test]
    fn at_or_below_looks_at_whole_labels() {
        let name = |text: &str| text.parse::<HostName>().unwrap();
        assert!(name("a.ui.example.com").is_at_or_below(&name("ui.example.com")));
        assert!(name("ui.example.com").is_at_or_below(&name("ui.example.com")));
        assert!(!name("gui.example.com").is_at_or_below(&name("ui.example.com")));
        assert!(!name("example.com").is_at_or_below(&name("ui.example.com")));
    }
}
