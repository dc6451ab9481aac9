//! Versions of other products, read like semantic versions: `1.2.3-rc.1`.

use crate::scan::{Release, core_of, take_number, take_release};

/// The parts that decide the order, most important first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SemanticOrder {
    release: Release,
    ripeness: Ripeness,
}

/// A pre-release comes before its release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Ripeness {
    PreRelease(Box<[Identifier]>),
    Final,
}

/// One part of a pre-release. Numbers come before words, as semantic versioning has it. A number at the end of a
/// word counts as a number, so that `rc2` comes before `rc10`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Identifier {
    Number(u64),
    Word { stem: Box<str>, number: Option<u64> },
}

impl SemanticOrder {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut rest = core_of(text)?;
        let release = take_release(&mut rest)?;
        let ripeness = if rest.is_empty() {
            Ripeness::Final
        } else {
            let identifiers = match rest.strip_prefix('-') {
                Some(identifiers) => identifiers,
                None if rest.starts_with(|next: char| next.is_ascii_alphabetic()) => rest,
                None => return None,
            };
            Ripeness::PreRelease(identifiers.split('.').map(Identifier::read).collect::<Option<_>>()?)
        };
        Some(Self { release, ripeness })
    }
}

impl Identifier {
    fn read(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return None;
        }
        let stem = text.trim_end_matches(|each: char| each.is_ascii_digit());
        let mut digits = text.strip_prefix(stem)?;
        let number = if digits.is_empty() { None } else { Some(take_number(&mut digits)?) };
        Some(match number {
            Some(number) if stem.is_empty() => Self::Number(number),
            number => Self::Word { stem: stem.to_ascii_lowercase().into(), number },
        })
    }
}
