//! Reading the JSON bodies of requests: bounded, and every error names the member that is wrong.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess},
};
use serde_json::Value;

use super::{MAX_BODY_BYTES, Problem, ProblemKind};

/// More members than any request has.
const MAX_MEMBERS: usize = 32;

/// A JSON object whose members are taken one by one.
pub(super) struct Members(Vec<(String, Value)>);

impl Members {
    /// Reads a body. No member may stand twice: two readers could disagree about which counts.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        if body.len() > MAX_BODY_BYTES {
            return Err(Problem::new(ProblemKind::TooLarge, "the body may have 16 KiB"));
        }
        serde_json::from_slice(body).map_err(|error| {
            // The parser's own words could quote a secret, except where they are ours.
            let detail = match error.classify() {
                serde_json::error::Category::Data => {
                    format!("the body has to be one JSON object: {}", one_line(&error.to_string()))
                }
                _ => format!(
                    "the body is not JSON (line {} column {}): send one JSON object",
                    error.line(),
                    error.column()
                ),
            };
            Problem::new(ProblemKind::BadRequest, detail)
        })
    }

    fn from_value(name: &str, value: Value) -> Result<Self, Problem> {
        match value {
            Value::Object(map) if map.len() <= MAX_MEMBERS => Ok(Self(map.into_iter().collect())),
            _ => Err(wrong(name, "has to be a JSON object")),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_null())
    }

    /// A text of at most `max` bytes without control characters; absent and null are `None`.
    pub(super) fn text(&mut self, name: &str, max: usize) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => checked_text(name, text, max).map(Some),
            Some(_) => Err(wrong(name, "has to be a text: put it in quotes")),
        }
    }

    /// A text that must be there.
    pub(super) fn required_text(&mut self, name: &str, max: usize) -> Result<String, Problem> {
        self.text(name, max)?.ok_or_else(|| wrong(name, "is missing"))
    }

    /// A number in a range, that must be there.
    pub(super) fn required_number(&mut self, name: &str, max: u64) -> Result<u64, Problem> {
        match self.take(name) {
            None => Err(wrong(name, "is missing")),
            Some(value) => value
                .as_u64()
                .filter(|number| *number <= max)
                .ok_or_else(|| wrong(name, &format!("has to be a whole number from 0 to {max}"))),
        }
    }

    /// A list of at most `count` texts.
    pub(super) fn texts(&mut self, name: &str, count: usize, max: usize) -> Result<Vec<String>, Problem> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) if values.len() <= count => values
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => checked_text(name, text, max),
                    _ => Err(wrong(name, "has to be a list of texts")),
                })
                .collect(),
            Some(_) => Err(wrong(name, &format!("has to be a list of at most {count} texts"))),
        }
    }

    /// A JSON object inside.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Problem> {
        self.take(name).map(|value| Self::from_value(name, value)).transpose()
    }

    /// Nothing else may be there: a misspelt member would be a default nobody asked for.
    pub(super) fn nothing_else(&self, known: &str) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().take(64).collect();
                Err(wrong(&shown, &format!("is not known here; there are {known}")))
            }
        }
    }
}

pub(super) fn wrong(name: &str, detail: &str) -> Problem {
    Problem::member(ProblemKind::BadRequest, name, detail)
}

fn checked_text(name: &str, text: String, max: usize) -> Result<String, Problem> {
    if text.len() > max {
        Err(wrong(name, &format!("may have {max} bytes")))
    } else if text.chars().any(char::is_control) {
        Err(wrong(name, "has control characters"))
    } else {
        Ok(text)
    }
}

fn one_line(text: &str) -> String {
    text.chars().take(200).map(|each| if each.is_control() { ' ' } else { each }).collect()
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if members.len() == MAX_MEMBERS {
                        return Err(de::Error::custom("it has too many members"));
                    }
                    if members.iter().any(|(known, _)| *known == name) {
                        let shown: String = name.chars().take(64).collect();
                        return Err(de::Error::custom(format_args!("{shown:?} stands there twice")));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        // Not `deserialize_any`: what is no object is refused without being read.
        deserializer.deserialize_map(Visitor)
    }
}
