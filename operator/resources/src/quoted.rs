//! Versions are texts. Without quotes YAML reads `2023.10` as the number 2023.1, so a number is refused with the remedy.

use std::fmt;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// A version, or nothing.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_option(Optional)
}

/// A list of texts with versions in them.
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(List)
}

fn refuse<T, E: Error>(number: impl fmt::Display) -> Result<T, E> {
    Err(E::custom(format_args!(
        "{number} is a number, not a version; quote it: without quotes 2023.10 is the number 2023.1"
    )))
}

struct Text;

impl<'de> serde::de::DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<String, E> {
        refuse(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        refuse(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
        refuse(number)
    }
}

struct Optional;

impl<'de> Visitor<'de> for Optional {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text in quotes")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(Text).map(Some)
    }
}

struct List;

impl<'de> Visitor<'de> for List {
    type Value = Vec<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of texts in quotes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        // Grown by what comes, never by an announced length.
        let mut texts = Vec::new();
        while let Some(text) = sequence.next_element_seed(Text)? {
            texts.push(text);
        }
        Ok(texts)
    }
}
