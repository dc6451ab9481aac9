//! Points in time, as statuses carry them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::jiff;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds since 1970, UTC. Written as RFC 3339, e.g. `2026-11-21T10:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// Why a text is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time; write it like 2026-11-21T10:00:00Z")]
pub struct TimestampError {
    text: String,
}

impl Timestamp {
    /// So many seconds later; never beyond what can be told.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (earliest, latest) = (jiff::Timestamp::MIN, jiff::Timestamp::MAX);
        let limit = if self.0 < 0 { earliest } else { latest };
        let time = jiff::Timestamp::from_second(self.0).unwrap_or(limit);
        write!(formatter, "{time:.0}")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Self(time.as_second())),
            Err(_) => Err(TimestampError { text: text.chars().take(64).collect() }),
        }
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        Self(time.as_second())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes_and_knows_zones() {
        let time = Timestamp(1_795_255_200);
        assert_eq!(time.to_string(), "2026-11-21T10:00:00Z");
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2026-11-21T10:00:00Z\"");
        for text in ["2026-11-21T10:00:00Z", "2026-11-21T11:00:00+01:00", "2026-11-21T10:00:00.250Z"] {
            assert_eq!(text.parse::<Timestamp>().unwrap(), time, "{text}");
        }
        assert!("yesterday".parse::<Timestamp>().unwrap_err().to_string().contains("2026-11-21T10:00:00Z"));
        assert_eq!(Timestamp(i64::MAX).to_string(), "9999-12-30T22:00:00Z");
    }
}
