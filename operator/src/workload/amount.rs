//! Amounts of processor, memory and storage as Kubernetes writes them: `500m`, `1.5`, `256Mi`.
//!
//! The API server stores an amount in another spelling than it was given (`0.5` becomes `500m`), so two of them are
//! compared by what they mean.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// Billionths: the finest amount there is.
const PER_ONE: i128 = 1_000_000_000;

/// An amount, in the spelling of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount(String);

impl Amount {
    /// The text, if it is an amount and not below zero.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        billionths(&text).filter(|amount| *amount >= 0).map(|_| Self(text))
    }

    /// So many MiB.
    pub fn of_mebibytes(number: u32) -> Self {
        Self(format!("{number}Mi"))
    }

    /// Nothing.
    pub fn none() -> Self {
        Self("0".to_owned())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is it more than another one?
    pub fn exceeds(&self, other: &Self) -> bool {
        billionths(&self.0) > billionths(&other.0)
    }
}

/// Do two texts mean the same amount?
pub(crate) fn same_amount(one: &str, two: &str) -> bool {
    billionths(one).is_some_and(|amount| Some(amount) == billionths(two))
}

fn billionths(text: &str) -> Option<i128> {
    let end = text.find(|letter: char| !matches!(letter, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (numerator, denominator) = scale(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (negative, whole) = match whole.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, whole.strip_prefix('+').unwrap_or(whole)),
    };
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let shift = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let amount = digits.parse::<i128>().ok()?.checked_mul(numerator)?.checked_mul(PER_ONE)?;
    let amount = amount / denominator.checked_mul(shift)?;
    Some(if negative { -amount } else { amount })
}

/// What a suffix multiplies with, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let thousands = |power| Some((1000_i128.pow(power), 1));
    let kibi = |power| Some((1024_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, PER_ONE)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => thousands(1),
        "M" => thousands(2),
        "G" => thousands(3),
        "T" => thousands(4),
        "P" => thousands(5),
        "E" => thousands(6),
        "Ki" => kibi(1),
        "Mi" => kibi(2),
        "Gi" => kibi(3),
        "Ti" => kibi(4),
        "Pi" => kibi(5),
        "Ei" => kibi(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reads)
    }
}

/// A number without quotes is an amount, too: people write `cpu: 2`.
struct Reads;

impl Visitor<'_> for Reads {
    type Value = Amount;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an amount such as 500m, 2 or 256Mi")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
        Amount::new(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_by_what_they_mean() {
        for (one, two) in [
            ("0.5", "500m"),
            ("1", "1000m"),
            ("1.0", "1"),
            ("1Gi", "1024Mi"),
            ("1e3", "1k"),
            ("100E-2", "1"),
            ("1.5Gi", "1536Mi"),
            ("+2", "2"),
            ("1000u", "1m"),
            ("1E", "1000P"),
        ] {
            assert!(same_amount(one, two), "{one} {two}");
        }
        for (one, two) in [("1", "1m"), ("1G", "1Gi"), ("x", "x"), ("", ""), ("1", "-1")] {
            assert!(!same_amount(one, two), "{one} {two}");
        }
    }

    #[test]
    fn nonsense_is_no_amount() {
        for text in ["", "m", "1 Gi", "1GiB", "1..5", "--1", "1-", "-1", "1e", "1e99999999999", "9e99", "٣"]
        {
            assert_eq!(Amount::new(text), None, "{text}");
        }
        assert!(Amount::new("2Gi").unwrap().exceeds(&Amount::new("1500Mi").unwrap()));
    }

    #[test]
    fn numbers_need_no_quotes() {
        let read = |text: &str| serde_json::from_str::<Amount>(text).map(|amount| amount.0);
        assert_eq!(read("2").unwrap(), "2");
        assert_eq!(read("0.5").unwrap(), "0.5");
        assert_eq!(read("\"1Gi\"").unwrap(), "1Gi");
        assert!(read("-1").unwrap_err().to_string().contains("such as 500m"));
    }
}
