//! Home Assistant's calendar versions: `2023.9.0.dev20230801`, `2023.9.0b3`, `2023.9.0`, `2023.9.1`.

use crate::scan::{Release, core_of, skip_separator, take_letters, take_number, take_release};

/// How finished a release is. Declared in the order of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Dev,
    Alpha,
    Beta,
    Candidate,
    Final,
    Post,
}

impl Stage {
    fn named(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "dev" | "d" => Self::Dev,
            "alpha" | "a" => Self::Alpha,
            "beta" | "b" => Self::Beta,
            "rc" | "c" | "pre" | "preview" => Self::Candidate,
            "post" | "rev" | "r" => Self::Post,
            _ => return None,
        })
    }
}

/// The parts that decide the order, most important first: the derived order is the order of versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CalendarOrder {
    release: Release,
    stage: Stage,
    number: u64,
    /// A dev build on the way to a stage (`2023.9.0b3.dev1`) comes before it; none is the last.
    dev_build: u64,
}

impl CalendarOrder {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut rest = core_of(text)?;
        let release = take_release(&mut rest)?;
        if rest.is_empty() {
            return Some(Self { release, stage: Stage::Final, number: 0, dev_build: u64::MAX });
        }
        let (stage, number) = take_stage(&mut rest)?;
        let mut dev_build = u64::MAX;
        if !rest.is_empty() && stage != Stage::Dev {
            let (second, build) = take_stage(&mut rest)?;
            if second != Stage::Dev {
                return None;
            }
            dev_build = build;
        }
        rest.is_empty().then_some(Self { release, stage, number, dev_build })
    }
}

/// Takes `b3`, `.dev20230801`, `-rc.1` off the front. No number means 0.
fn take_stage(rest: &mut &str) -> Option<(Stage, u64)> {
    skip_separator(rest);
    let stage = Stage::named(take_letters(rest))?;
    let mut behind = *rest;
    skip_separator(&mut behind);
    if behind.starts_with(|next: char| next.is_ascii_digit()) {
        let number = take_number(&mut behind)?;
        *rest = behind;
        Some((stage, number))
    } else {
        Some((stage, 0))
    }
}
