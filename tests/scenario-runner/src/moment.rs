//! Times in scenarios: a moment, or so long after another one.

use resources::Timestamp;
use serde::Deserialize;

/// When a scenario begins, unless it says otherwise: 2026-01-01T00:00:00Z.
pub(crate) const BEGIN: Timestamp = Timestamp(1_767_225_600);

/// A moment as it is written: `2026-01-01T00:00:00Z`, or `+10m`, `-30s`, `+1d12h` from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum When {
    /// This moment.
    At(Timestamp),
    /// So many seconds after another one; before it, if negative.
    After(i64),
}

impl When {
    /// Which moment that is, seen from another one.
    pub fn from(self, other: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::After(seconds) => other.plus_seconds(seconds),
        }
    }
}

impl TryFrom<String> for When {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let read = match text.split_at_checked(1) {
            Some(("+", rest)) => duration(rest).map(Self::After),
            Some(("-", rest)) => duration(rest).map(|seconds| Self::After(-seconds)),
            _ => text.parse().ok().map(Self::At),
        };
        read.ok_or_else(|| {
            format!("{text:?} is no time: write +30s, +10m, +2h, +90d, +1d12h, or 2026-01-01T00:00:00Z")
        })
    }
}

/// `1d12h` in seconds.
fn duration(text: &str) -> Option<i64> {
    let mut seconds = 0_i64;
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, behind) = rest.split_at_checked(rest.find(|each: char| !each.is_ascii_digit())?)?;
        let (unit, behind) = behind.split_at_checked(1)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        seconds = digits.parse::<i64>().ok()?.checked_mul(unit)?.checked_add(seconds)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(text: &str) -> Result<When, String> {
        When::try_from(text.to_owned())
    }

    #[test]
    fn times_are_absolute_or_relative() {
        assert_eq!(when("2026-01-01T00:00:00Z").unwrap(), When::At(BEGIN));
        assert_eq!(when("+10m").unwrap().from(Timestamp(5)), Timestamp(605));
        assert_eq!(when("-30s").unwrap().from(Timestamp(100)), Timestamp(70));
        assert_eq!(when("+1d12h").unwrap(), When::After(129_600));
        assert_eq!(BEGIN.to_string(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn anything_else_is_refused_with_examples() {
        for text in ["", "+", "10m", "+10", "+m", "+1w", "tomorrow", "2026-01-01"] {
            assert!(when(text).unwrap_err().contains("+10m"), "{text}");
        }
    }
}
