//! JSON that is read no deeper than anything of ours goes.
//!
//! `serde_json` gives up on what is nested more than 128 deep. Within an answer about many objects that is the end of the
//! whole answer, so that one object that somebody wrote under another definition would keep the operator from seeing every
//! other. What is passed over here was no part of anything that makes sense: its place has another type, and is told so.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

/// How deep a value may be nested. Ours need seven.
const DEEPEST: usize = 32;

/// A value in which everything is null that was nested deeper than [`DEEPEST`].
#[derive(Debug, Default)]
pub(crate) struct Shallow(pub(crate) Value);

impl<'de> Deserialize<'de> for Shallow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Levels(DEEPEST).deserialize(deserializer).map(Self)
    }
}

/// So many levels are read.
#[derive(Clone, Copy)]
struct Levels(usize);

impl Levels {
    fn below(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.0 == 0 {
            // Passed over without a call for each level.
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(self.below())? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            members.insert(name, map.next_value_seed(self.below())?);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        serde_json::from_str::<Shallow>(text).unwrap().0
    }

    #[test]
    fn what_is_as_deep_as_anything_of_ours_is_read_as_it_is() {
        let text = r#"{"a": [1, -2, 3.5, "four", null, true, {"b": {"c": []}}], "d": 18446744073709551615}"#;
        assert_eq!(read(text), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_nobody_could_read_is_passed_over() {
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let text = |depth| format!(r#"{{"deep": {}, "beside": "x"}}"#, nested(depth));
        assert!(serde_json::from_str::<Value>(&text(5_000)).is_err(), "else there is no need of it");
        let value = read(&text(5_000));
        assert_eq!(value["beside"], "x");
        assert_eq!(read(&text(5))["deep"], serde_json::from_str::<Value>(&nested(5)).unwrap());
        assert_eq!(value.pointer(&format!("/deep{}", "/0".repeat(DEEPEST - 1))), Some(&Value::Null));
        assert_eq!(read("7"), json!(7));
    }
}
