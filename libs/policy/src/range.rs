//! Ranges of versions: `<=2021.1.4`, `>=2023.1, <2023.3.2`, `2023.1.0`.

use std::fmt;

use crate::version::{ProductVersion, VersionError, VersionScheme};

/// Longest range text.
pub const MAX_RANGE_LENGTH: usize = 256;

/// Most comparisons in one range.
pub const MAX_COMPARISONS: usize = 8;

/// Versions that satisfy every comparison of a list. Shows as it was written.
///
/// Versions are compared directly: `<2023.9.0` contains `2023.9.0b3`, since a beta is older than its release
/// (Python's own specifiers leave pre-releases out, which would let a vulnerable beta slip through a block).
///
/// ```
/// use policy::{ProductVersion, VersionRange, VersionScheme::Calendar};
///
/// let range = VersionRange::parse(">=2023.1, <2023.3.2", Calendar)?;
/// assert!(range.contains(&ProductVersion::parse("2023.3.2b1", Calendar)?));
/// assert!(!range.contains(&ProductVersion::parse("2023.3.2", Calendar)?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionRange {
    text: Box<str>,
    comparisons: Box<[Comparison]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Comparison {
    operator: Operator,
    version: ProductVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operator {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Nothing where a comparison belongs.
    #[error(
        "version range {range:?} has an empty comparison; write e.g. \"<=2021.1.4\" or \">=2023.1, <2023.3.2\""
    )]
    Empty {
        /// The range as written.
        range: String,
    },
    /// Too much text or too many comparisons.
    #[error(
        "version range beginning {beginning:?} is too long: at most {MAX_RANGE_LENGTH} bytes and {MAX_COMPARISONS} comparisons; split it into several ranges"
    )]
    TooLong {
        /// Its first characters.
        beginning: String,
    },
    /// Syntax of another tool.
    #[error("version range {range:?}: {found:?} is not known here; {instead}")]
    Operator {
        /// The range as written.
        range: String,
        /// What is not understood.
        found: &'static str,
        /// What to write.
        instead: &'static str,
    },
    /// A bound that is no version.
    #[error("version range {range:?}: {source}")]
    Version {
        /// The range as written.
        range: String,
        /// What is wrong with the bound.
        source: VersionError,
    },
    /// Bounds that exclude each other.
    #[error("version range {range:?} contains no version: its bounds exclude each other")]
    Nothing {
        /// The range as written.
        range: String,
    },
}

/// What people know from other tools, and what to write here.
const FOREIGN: [(&str, &str); 6] = [
    ("!=", "write two ranges, one below and one above"),
    ("~=", "write both bounds, e.g. \">=2023.1, <2023.2\""),
    ("~", "write both bounds, e.g. \">=1.2.0, <1.3.0\""),
    ("^", "write both bounds, e.g. \">=1.2.0, <2.0.0\""),
    ("*", "write both bounds, e.g. \">=2023.1, <2023.2\""),
    ("|", "write several ranges, any of which may match"),
];

impl VersionRange {
    /// Reads a range in the scheme of its product. Commas mean *and*; a version alone means exactly this one.
    pub fn parse(text: &str, scheme: VersionScheme) -> Result<Self, RangeError> {
        let text = text.trim();
        let range = || text.to_owned();
        if text.len() > MAX_RANGE_LENGTH || text.split(',').count() > MAX_COMPARISONS {
            return Err(RangeError::TooLong { beginning: text.chars().take(40).collect() });
        }
        if let Some((found, instead)) = FOREIGN.into_iter().find(|(found, _)| text.contains(found)) {
            return Err(RangeError::Operator { range: range(), found, instead });
        }
        let comparisons = text
            .split(',')
            .map(|part| {
                let (operator, version) = split_operator(part.trim());
                if version.is_empty() {
                    return Err(RangeError::Empty { range: range() });
                }
                let version = ProductVersion::parse(version, scheme)
                    .map_err(|source| RangeError::Version { range: range(), source })?;
                Ok(Comparison { operator, version })
            })
            .collect::<Result<Box<[_]>, _>>()?;
        if contradict(&comparisons) {
            return Err(RangeError::Nothing { range: range() });
        }
        Ok(Self { text: text.into(), comparisons })
    }

    /// Is the version inside? A version of another scheme never is.
    pub fn contains(&self, version: &ProductVersion) -> bool {
        self.scheme() == Some(version.scheme())
            && self.comparisons.iter().all(|comparison| comparison.holds_for(version))
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme it was read in.
    pub(crate) fn scheme(&self) -> Option<VersionScheme> {
        self.comparisons.first().map(|comparison| comparison.version.scheme())
    }
}

impl Comparison {
    fn holds_for(&self, version: &ProductVersion) -> bool {
        match self.operator {
            Operator::Less => *version < self.version,
            Operator::LessOrEqual => *version <= self.version,
            Operator::Equal => *version == self.version,
            Operator::GreaterOrEqual => *version >= self.version,
            Operator::Greater => *version > self.version,
        }
    }

    /// Does it bound from below?
    fn is_lower(&self) -> bool {
        matches!(self.operator, Operator::Equal | Operator::GreaterOrEqual | Operator::Greater)
    }

    /// Does it bound from above?
    fn is_upper(&self) -> bool {
        matches!(self.operator, Operator::Equal | Operator::LessOrEqual | Operator::Less)
    }

    fn includes_its_version(&self) -> bool {
        !matches!(self.operator, Operator::Less | Operator::Greater)
    }
}

/// Splits `<=2021.1.4` into operator and version text.
fn split_operator(part: &str) -> (Operator, &str) {
    const SPELLINGS: [(&str, Operator); 6] = [
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("==", Operator::Equal),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("=", Operator::Equal),
    ];
    SPELLINGS
        .into_iter()
        .find_map(|(spelling, operator)| Some((operator, part.strip_prefix(spelling)?.trim_start())))
        .unwrap_or((Operator::Equal, part))
}

/// Is some lower bound above some upper bound?
fn contradict(comparisons: &[Comparison]) -> bool {
    comparisons.iter().filter(|each| each.is_lower()).any(|lower| {
        comparisons.iter().filter(|each| each.is_upper()).any(|upper| {
            let both_included = lower.includes_its_version() && upper.includes_its_version();
            lower.version > upper.version || (lower.version == upper.version && !both_included)
        })
    })
}

impl fmt::Display for VersionRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl serde::Serialize for VersionRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, version: &str) -> bool {
        let scheme = VersionScheme::Calendar;
        let range = VersionRange::parse(range, scheme).unwrap();
        range.contains(&ProductVersion::parse(version, scheme).unwrap())
    }

    fn message(range: &str) -> String {
        VersionRange::parse(range, VersionScheme::Calendar).unwrap_err().to_string()
    }

    #[test]
    fn every_operator() {
        // (range, below, at, above 2021.1.4)
        for (range, inside) in [
            ("<2021.1.4", [true, false, false]),
            ("<=2021.1.4", [true, true, false]),
            ("=2021.1.4", [false, true, false]),
            ("==2021.1.4", [false, true, false]),
            ("2021.1.4", [false, true, false]),
            ("2021.1.4.0", [false, true, false]),
            (">=2021.1.4", [false, true, true]),
            (">2021.1.4", [false, false, true]),
            ("  >= 2021.1.4 ,<2021.1.5 ", [false, true, false]),
        ] {
            let found = ["2021.1.4b1", "2021.1.4", "2021.1.5"].map(|version| contains(range, version));
            assert_eq!(found, inside, "{range}");
        }
    }

    #[test]
    fn prereleases_are_compared_directly() {
        assert!(contains("<2023.9.0", "2023.9.0b3"));
        assert!(contains("<2023.9.0", "2023.9.0.dev20230801"));
        assert!(contains(">=2023.9.0b3, <=2023.9.0", "2023.9.0rc1"));
        assert!(!contains(">=2023.9.0", "2023.9.0b3"));
    }

    #[test]
    fn a_version_of_another_scheme_is_outside() {
        let range = VersionRange::parse("<9999", VersionScheme::Calendar).unwrap();
        assert!(!range.contains(&ProductVersion::parse("1.0.0", VersionScheme::Semantic).unwrap()));
    }

    #[test]
    fn errors_say_what_to_write() {
        assert!(message("").contains("empty comparison"));
        assert!(message("<=").contains("empty comparison"));
        assert!(message(">=2023.1,").contains("empty comparison"));
        assert!(message("2023.9.*").contains(">=2023.1, <2023.2"));
        assert!(message("^2023.9").contains("write both bounds"));
        assert!(message("!=2023.9").contains("two ranges"));
        assert!(message("<1 || >2").contains("several ranges"));
        assert!(message("<=latest").contains("\"latest\" cannot be read"));
        assert!(message("=>2023.1").contains("\">2023.1\" cannot be read"));
        assert!(message(&"1,".repeat(200)).contains("too long"));
        assert!(message("1,1,1,1,1,1,1,1,1").contains("too long"));
    }

    #[test]
    fn bounds_that_exclude_each_other_are_a_mistake() {
        for range in [">2023.2, <2023.1", ">2023.1, <=2023.1", "2023.1, 2023.2", "2023.1, <2023.1"] {
            assert!(message(range).contains("contains no version"), "{range}");
        }
        assert!(contains(">=2023.1, <=2023.1", "2023.1"));
    }
}
