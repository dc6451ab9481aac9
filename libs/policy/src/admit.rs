//! The one decision whether a version may be reached, for planner and proxy alike.

use std::sync::Arc;

use crate::range::VersionRange;
use crate::version::{ProductVersion, ReportedVersion};

/// What a block does to the versions it names.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub enum BlockAction {
    /// Remote access ends.
    #[default]
    Block,
    /// Counts and warns, blocks nobody.
    Warn,
}

/// A finding about versions of a product.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionBlock {
    /// Its name, by which it can be accepted.
    pub name: Arc<str>,
    /// The versions meant: those inside any of the ranges.
    pub ranges: Vec<VersionRange>,
    /// What is wrong with them, for people.
    pub reason: String,
    /// A link with more.
    pub more_info: Option<String>,
    /// What it does.
    pub action: BlockAction,
}

impl VersionBlock {
    /// Does any range contain the version?
    pub fn names(&self, version: &ProductVersion) -> bool {
        self.ranges.iter().any(|range| range.contains(version))
    }

    fn told(&self) -> BlockedBy {
        BlockedBy {
            name: self.name.to_string(),
            reason: self.reason.clone(),
            more_info: self.more_info.clone(),
        }
    }
}

/// What to do with a version that was never reported or cannot be read.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub enum UnknownVersion {
    /// Let it in.
    #[default]
    Allow,
    /// Keep it out.
    Block,
}

/// A block as it is told to people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedBy {
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub reason: String,
    /// A link with more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_info: Option<String>,
}

/// What [`admit`] decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// May be reached.
    Admitted {
        /// Findings that only warn.
        warned_by: Vec<BlockedBy>,
        /// Names of matching blocks that were accepted.
        accepted: Vec<String>,
    },
    /// May not: these blocks name its version.
    Refused {
        /// Every block in force, in the order given.
        blocked_by: Vec<BlockedBy>,
    },
    /// May not: nobody can tell its version, and that is not allowed here.
    RefusedUnknown {
        /// What was reported, if anything was.
        text: Option<String>,
    },
}

impl Admission {
    /// May it be reached?
    pub fn is_admitted(&self) -> bool {
        matches!(self, Self::Admitted { .. })
    }
}

/// Decides whether an instance of this version may be reached.
///
/// | version | blocks that name it | accepted | unknown versions | decision |
/// |---|---|---|---|---|
/// | known | none | any | any | admitted |
/// | known | one that blocks | no | any | refused by it |
/// | known | one that blocks | yes | any | admitted, `accepted` names it |
/// | known | one that warns | no | any | admitted, warned |
/// | known | one that warns | yes | any | admitted, `accepted` names it, no warning |
/// | known | two that block | both | any | admitted, `accepted` names both |
/// | known | two that block | one | any | refused by the other |
/// | known | two that block | none | any | refused by both |
/// | known | one that blocks, one that warns | no | any | refused by the first |
/// | unreadable | cannot be told | any | allow | admitted |
/// | unreadable | cannot be told | any | block | refused as unknown, with the text |
/// | never reported | cannot be told | any | allow | admitted |
/// | never reported | cannot be told | any | block | refused as unknown |
///
/// A version and ranges read in different schemes are brought into the ranges' scheme first; where that is
/// impossible the version counts as unreadable.
///
/// ```
/// use policy::{Admission, BlockAction, ReportedVersion, UnknownVersion, VersionBlock, VersionRange};
/// use policy::{VersionScheme::Calendar, admit};
///
/// let traversal = VersionBlock {
///     name: "core-2021-1-4".into(),
///     ranges: vec![VersionRange::parse("<=2021.1.4", Calendar)?],
///     reason: "Directory traversal".to_owned(),
///     more_info: None,
///     action: BlockAction::Block,
/// };
/// let old = ReportedVersion::read("2021.1.3", Calendar);
/// let decision = admit(&old, std::slice::from_ref(&traversal), &[], UnknownVersion::Allow);
/// assert!(matches!(decision, Admission::Refused { .. }));
///
/// let accepted = [String::from("core-2021-1-4")];
/// assert!(admit(&old, &[traversal], &accepted, UnknownVersion::Allow).is_admitted());
/// # Ok::<(), policy::RangeError>(())
/// ```
pub fn admit(
    version: &ReportedVersion,
    blocks: &[VersionBlock],
    accepted: &[String],
    unknown: UnknownVersion,
) -> Admission {
    let scheme = blocks.iter().flat_map(|block| &block.ranges).find_map(VersionRange::scheme);
    let readable =
        version.known().and_then(|known| scheme.map_or(Some(known.clone()), |s| known.in_scheme(s).ok()));
    let Some(version_read) = readable else {
        return match unknown {
            UnknownVersion::Allow => Admission::Admitted { warned_by: Vec::new(), accepted: Vec::new() },
            UnknownVersion::Block => Admission::RefusedUnknown { text: version.text().map(str::to_owned) },
        };
    };
    let (mut blocked_by, mut warned_by, mut accepted_here) = (Vec::new(), Vec::new(), Vec::new());
    for block in blocks.iter().filter(|block| block.names(&version_read)) {
        if accepted.iter().any(|name| **name == *block.name) {
            accepted_here.push(block.name.to_string());
        } else {
            match block.action {
                BlockAction::Block => blocked_by.push(block.told()),
                BlockAction::Warn => warned_by.push(block.told()),
            }
        }
    }
    if blocked_by.is_empty() {
        Admission::Admitted { warned_by, accepted: accepted_here }
    } else {
        Admission::Refused { blocked_by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VersionScheme::{Calendar, Semantic};

    fn block(name: &str, range: &str, action: BlockAction) -> VersionBlock {
        VersionBlock {
            name: name.into(),
            ranges: vec![VersionRange::parse(range, Calendar).unwrap()],
            reason: format!("reason of {name}"),
            more_info: Some(format!("https://example.com/{name}")),
            action,
        }
    }

    fn hole() -> VersionBlock {
        block("hole", "<=2021.1.4", BlockAction::Block)
    }

    fn leak() -> VersionBlock {
        block("leak", ">=2021.1, <2021.2", BlockAction::Block)
    }

    fn crumb() -> VersionBlock {
        block("crumb", "<2021.6", BlockAction::Warn)
    }

    fn decide(version: &str, blocks: &[VersionBlock], accepted: &[&str]) -> Admission {
        let accepted: Vec<String> = accepted.iter().map(ToString::to_string).collect();
        let version = ReportedVersion::read(version, Calendar);
        let decision = admit(&version, blocks, &accepted, UnknownVersion::Allow);
        // A version that can be read never depends on what unknown versions may do.
        assert_eq!(decision, admit(&version, blocks, &accepted, UnknownVersion::Block));
        decision
    }

    fn admitted(warned_by: &[VersionBlock], accepted: &[&str]) -> Admission {
        Admission::Admitted {
            warned_by: warned_by.iter().map(VersionBlock::told).collect(),
            accepted: accepted.iter().map(ToString::to_string).collect(),
        }
    }

    fn refused(blocked_by: &[VersionBlock]) -> Admission {
        Admission::Refused { blocked_by: blocked_by.iter().map(VersionBlock::told).collect() }
    }

    #[test]
    fn known_and_named_by_none_is_admitted() {
        assert_eq!(decide("2026.11.1", &[hole(), leak(), crumb()], &["hole"]), admitted(&[], &[]));
        assert_eq!(decide("2026.11.1", &[], &[]), admitted(&[], &[]));
    }

    #[test]
    fn known_and_blocked_is_refused() {
        assert_eq!(decide("2020.12.1", &[hole(), leak()], &["other"]), refused(&[hole()]));
    }

    #[test]
    fn known_and_blocked_but_accepted_is_admitted() {
        assert_eq!(decide("2020.12.1", &[hole()], &["hole"]), admitted(&[], &["hole"]));
    }

    #[test]
    fn known_and_warned_is_admitted_with_the_warning() {
        assert_eq!(decide("2021.5.0", &[hole(), crumb()], &[]), admitted(&[crumb()], &[]));
    }

    #[test]
    fn known_and_warned_but_accepted_is_admitted_in_silence() {
        assert_eq!(decide("2021.5.0", &[crumb()], &["crumb"]), admitted(&[], &["crumb"]));
    }

    #[test]
    fn two_blocks_both_accepted_is_admitted() {
        let decision = decide("2021.1.3", &[hole(), leak()], &["leak", "hole"]);
        assert_eq!(decision, admitted(&[], &["hole", "leak"]));
    }

    #[test]
    fn two_blocks_one_accepted_is_refused_by_the_other() {
        assert_eq!(decide("2021.1.3", &[hole(), leak()], &["hole"]), refused(&[leak()]));
    }

    #[test]
    fn two_blocks_none_accepted_is_refused_by_both() {
        assert_eq!(decide("2021.1.3", &[hole(), leak()], &[]), refused(&[hole(), leak()]));
    }

    #[test]
    fn a_block_beside_a_warning_is_refused_by_the_block() {
        assert_eq!(decide("2020.12.1", &[crumb(), hole()], &[]), refused(&[hole()]));
    }

    fn decide_unknown(version: &ReportedVersion, unknown: UnknownVersion) -> Admission {
        admit(version, &[hole(), crumb()], &[], unknown)
    }

    #[test]
    fn unreadable_where_unknown_is_allowed_is_admitted() {
        let version = ReportedVersion::read("latest", Calendar);
        assert_eq!(decide_unknown(&version, UnknownVersion::Allow), admitted(&[], &[]));
    }

    #[test]
    fn unreadable_where_unknown_is_blocked_is_refused_with_its_text() {
        let version = ReportedVersion::read("latest", Calendar);
        let refused = Admission::RefusedUnknown { text: Some("latest".to_owned()) };
        assert_eq!(decide_unknown(&version, UnknownVersion::Block), refused);
    }

    #[test]
    fn never_reported_where_unknown_is_allowed_is_admitted() {
        assert_eq!(decide_unknown(&ReportedVersion::Unknown, UnknownVersion::Allow), admitted(&[], &[]));
    }

    #[test]
    fn never_reported_where_unknown_is_blocked_is_refused() {
        let refused = Admission::RefusedUnknown { text: None };
        assert_eq!(decide_unknown(&ReportedVersion::Unknown, UnknownVersion::Block), refused);
    }

    #[test]
    fn a_version_read_in_the_wrong_scheme_does_not_slip_through() {
        let old = ReportedVersion::read("2021.1.3", Semantic);
        assert_eq!(admit(&old, &[hole()], &[], UnknownVersion::Allow), refused(&[hole()]));
        let strange = ReportedVersion::read("1.0.0-alpha.beta", Semantic);
        assert!(strange.known().is_some());
        assert!(!admit(&strange, &[hole()], &[], UnknownVersion::Block).is_admitted());
    }

    #[test]
    fn any_range_of_a_block_is_enough() {
        let mut block = hole();
        block.ranges.push(VersionRange::parse("2024.1.0", Calendar).unwrap());
        assert!(!decide("2024.1.0", std::slice::from_ref(&block), &[]).is_admitted());
        assert!(!decide("2019.1.0", std::slice::from_ref(&block), &[]).is_admitted());
        assert!(decide("2024.1.1", &[block], &[]).is_admitted());
    }
}
