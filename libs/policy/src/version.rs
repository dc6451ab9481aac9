//! A version of a product, read once and then only compared.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::calendar::CalendarOrder;
use crate::semantic::SemanticOrder;

/// Longest version text that is looked at; a longer one is unreadable.
pub const MAX_VERSION_LENGTH: usize = 64;

/// How the versions of a product are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VersionScheme {
    /// Home Assistant's calendar versions, `2026.11.0b2`: dev < alpha < beta < rc < release < patch.
    Calendar,
    /// Like semantic versions, `1.2.3-rc.1`.
    Semantic,
}

impl VersionScheme {
    /// Versions of this scheme to show in a message.
    fn examples(self) -> &'static str {
        match self {
            Self::Calendar => "2026.11.1, 2026.11.0b2 or 2026.11.0.dev20261020",
            Self::Semantic => "1.2.3 or 1.2.3-rc.1",
        }
    }
}

impl fmt::Display for VersionScheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Calendar => "calendar",
            Self::Semantic => "semantic",
        })
    }
}

/// A version that could be read. Shows as it was written, and compares by its scheme.
///
/// Two spellings of one version are equal: `2023.9` and `2023.9.0`, `2023.9.0b3` and `v2023.9.0-beta.3`. What
/// follows a `+` (build metadata) takes no part. Where versions of the two schemes meet, calendar comes first,
/// only so that the order is total; nothing here mixes them.
///
/// # Calendar versions beside `awesomeversion`
///
/// Home Assistant itself compares with the Python package `awesomeversion`. Over every pair of its real release
/// names, and over generated ones, both agree (`tests/versions/run` shows it, and each row here). They differ on texts
/// Home Assistant never released under:
///
/// | versions | `awesomeversion` 25.8 | here |
/// |---|---|---|
/// | `2023.9.0.dev`, `2023.9.0b` (no number) | refuses to compare | number 0 |
/// | `2023.9.0b.1`, `2023.9.0` (a dot before the number) | refuses to compare | number 1 |
/// | `2023.9.0.post1`, `2023.9.0` | the first is older | the first is newer |
/// | `2023.9.beta2`, `2023.9.b0` (two spellings) | neither is newer | the first is newer |
/// | `2023.9.10b0`, `2023.9.10` (two digits before the stage) | neither is newer | the beta is older |
/// | `2023b1`, `2023` (stage behind one number) | neither is newer | the beta is older |
/// | `2023.9.0b1.dev1`, `2023.9.0.dev1` | neither is newer: only the last word counts | a dev build on the way to beta 1 |
/// | `2023.9.1-dev.2`, `2023.9.1dev2` (a dash) | the dash one is older | equal |
/// | `2023.9`, `2023.9.0`, `2023.9.0+x1` (spellings of one) | unequal, and neither is newer | equal |
///
/// # Semantic versions
///
/// Precedence is that of semantic versioning 2.0 with these liberties: any count of numbers before the dash, a
/// missing dash before a letter (`1.2.3rc1`), letters of either case are equal, and a number at the end of a word
/// counts as a number (`rc2` < `rc10`). The words themselves compare by alphabet: `dev` comes after `beta`.
#[derive(Clone)]
pub struct ProductVersion(Arc<Inner>);

struct Inner {
    text: Box<str>,
    order: Order,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Order {
    Calendar(CalendarOrder),
    Semantic(SemanticOrder),
}

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be read as a {scheme} version; write it like {}", scheme.examples())]
pub struct VersionError {
    text: String,
    scheme: VersionScheme,
}

impl ProductVersion {
    /// Reads a version; white space around it is ignored.
    pub fn parse(text: &str, scheme: VersionScheme) -> Result<Self, VersionError> {
        let text = text.trim();
        let order = if text.len() > MAX_VERSION_LENGTH {
            None
        } else {
            match scheme {
                VersionScheme::Calendar => CalendarOrder::read(text).map(Order::Calendar),
                VersionScheme::Semantic => SemanticOrder::read(text).map(Order::Semantic),
            }
        };
        match order {
            Some(order) => Ok(Self(Arc::new(Inner { text: text.into(), order }))),
            None => Err(VersionError { text: presentable(text), scheme }),
        }
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The scheme it was read in.
    pub fn scheme(&self) -> VersionScheme {
        match self.0.order {
            Order::Calendar(_) => VersionScheme::Calendar,
            Order::Semantic(_) => VersionScheme::Semantic,
        }
    }

    /// The same version in another scheme, if its text can be read so.
    pub fn in_scheme(&self, scheme: VersionScheme) -> Result<Self, VersionError> {
        if self.scheme() == scheme { Ok(self.clone()) } else { Self::parse(self.as_str(), scheme) }
    }
}

impl PartialEq for ProductVersion {
    fn eq(&self, other: &Self) -> bool {
        self.0.order == other.0.order
    }
}

impl Eq for ProductVersion {}

impl PartialOrd for ProductVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProductVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.order.cmp(&other.0.order)
    }
}

impl Hash for ProductVersion {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.order.hash(state);
    }
}

impl fmt::Display for ProductVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for ProductVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.scheme(), self.as_str())
    }
}

impl serde::Serialize for ProductVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What somebody said an instance's version is. A text nobody can read is a value like any other: a policy
/// decides about it, not an error.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ReportedVersion {
    /// A version.
    Known(ProductVersion),
    /// A text that is no version, shortened and made fit to print.
    Unreadable(String),
    /// Nobody said.
    #[default]
    Unknown,
}

impl ReportedVersion {
    /// Reads what was reported; nothing but white space is [`ReportedVersion::Unknown`].
    pub fn read(text: &str, scheme: VersionScheme) -> Self {
        match ProductVersion::parse(text, scheme) {
            Ok(version) => Self::Known(version),
            Err(_) if text.trim().is_empty() => Self::Unknown,
            Err(error) => Self::Unreadable(error.text),
        }
    }

    /// The version, if it could be read.
    pub fn known(&self) -> Option<&ProductVersion> {
        match self {
            Self::Known(version) => Some(version),
            Self::Unreadable(_) | Self::Unknown => None,
        }
    }

    /// The text, if there is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Known(version) => Some(version.as_str()),
            Self::Unreadable(text) => Some(text),
            Self::Unknown => None,
        }
    }
}

/// A text from outside, shortened and without control characters, so that it can stand in logs and statuses.
fn presentable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_VERSION_LENGTH)
        .map(|each| if each.is_control() { char::REPLACEMENT_CHARACTER } else { each })
        .collect();
    if text.chars().nth(MAX_VERSION_LENGTH).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(text: &str) -> ProductVersion {
        ProductVersion::parse(text, VersionScheme::Calendar).unwrap()
    }

    fn semantic(text: &str) -> ProductVersion {
        ProductVersion::parse(text, VersionScheme::Semantic).unwrap()
    }

    /// Every version is less than every later one in the list.
    fn assert_ascending(versions: &[ProductVersion]) {
        for (at, left) in versions.iter().enumerate() {
            for right in &versions[at + 1..] {
                assert!(left < right, "{left} < {right}");
                assert!(right > left, "{right} > {left}");
            }
        }
    }

    #[test]
    fn calendar_versions_ascend_from_dev_to_patch() {
        let ascending = [
            "0.7.0",
            "0.118.0b1",
            "0.118.5",
            "2020.12.0.dev0",
            "2020.12.0",
            "2021.1.3",
            "2021.1.4",
            "2021.1.5",
            "2022.11.5",
            "2022.12.0b5",
            "2022.12.0",
            "2023.8.4",
            "2023.9.0.dev20230801",
            "2023.9.0.dev202308020223",
            "2023.9.0a1",
            "2023.9.0b3.dev1",
            "2023.9.0b3",
            "2023.9.0b10",
            "2023.9.0rc1",
            "2023.9.0",
            "2023.9.0.post1",
            "2023.9.1",
            "2023.9.10b1",
            "2023.9.10",
            "2023.10.0",
            "2026.11.1",
        ];
        assert_ascending(&ascending.map(calendar));
    }

    #[test]
    fn semantic_versions_ascend_as_semver_says() {
        let ascending = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1-rc2",
            "1.0.1rc10",
            "1.0.1",
            "1.2",
            "1.10.0",
            "2",
        ];
        assert_ascending(&ascending.map(semantic));
    }

    #[test]
    fn spellings_of_one_version_are_equal_and_show_as_written() {
        for (left, right) in [
            ("2023.9", "2023.9.0"),
            ("2023.09.1", "2023.9.1"),
            ("v2023.9.0", "2023.9.0"),
            ("2023.9.0-beta.3", "2023.9.0b3"),
            ("2023.9.0+local.1", "2023.9.0"),
            (" 2023.9.0\n", "2023.9.0"),
            ("2023.9.0.dev", "2023.9.0.dev0"),
            ("2023.9.0B3", "2023.9.0b3"),
        ] {
            assert_eq!(calendar(left), calendar(right));
            assert_eq!(calendar(left).to_string(), left.trim());
        }
        assert_eq!(semantic("1.2.3+a"), semantic("v1.2.3+b"));
    }

    #[test]
    fn what_is_no_version_is_unreadable() {
        let too_long = format!("2023.9.0.dev{}", "1".repeat(60));
        let too_big = format!("2023.{}", u128::MAX);
        for text in [
            "latest",
            "dev",
            "2023.",
            "2023..1",
            ".1",
            "2023.9.0x1",
            "2023.9.0b3rc1",
            "2023.9.0b3.post1",
            "1!2023.9",
            "2023.9.0+",
            "2023.9.0+a..b",
            "2023.9.0-1",
            "2023.9.0 b3",
            "２０２３.9",
            &too_long,
            &too_big,
        ] {
            let read = ReportedVersion::read(text, VersionScheme::Calendar);
            assert!(matches!(read, ReportedVersion::Unreadable(_)), "{text}: {read:?}");
        }
        for text in ["1.2.3-", "1.2.3-a..b", "1.2.3.rc1", "x1", "1.2.3-ä", &format!("1.2.3-rc{}", u128::MAX)]
        {
            let read = ReportedVersion::read(text, VersionScheme::Semantic);
            assert!(matches!(read, ReportedVersion::Unreadable(_)), "{text}: {read:?}");
        }
        assert_eq!(ReportedVersion::read(" \n", VersionScheme::Calendar), ReportedVersion::Unknown);
    }

    #[test]
    fn sixty_four_bytes_are_read_and_sixty_five_are_not() {
        let longest = format!("2023.9.0+{}", "a".repeat(55));
        assert!(ReportedVersion::read(&longest, VersionScheme::Calendar).known().is_some());
        assert!(ReportedVersion::read(&format!("{longest}a"), VersionScheme::Calendar).known().is_none());
    }

    #[test]
    fn an_unreadable_text_is_fit_to_print() {
        let text = format!("\u{1b}[31m{}", "x".repeat(10_000));
        let read = ReportedVersion::read(&text, VersionScheme::Calendar);
        let shown = read.text().unwrap();
        assert!(shown.chars().count() <= MAX_VERSION_LENGTH + 1);
        assert!(!shown.chars().any(char::is_control));
    }

    #[test]
    fn the_error_names_the_text_and_what_to_write() {
        let error = ProductVersion::parse("latest", VersionScheme::Calendar).unwrap_err().to_string();
        assert_eq!(
            error,
            "\"latest\" cannot be read as a calendar version; write it like 2026.11.1, 2026.11.0b2 or \
             2026.11.0.dev20261020"
        );
    }
}
