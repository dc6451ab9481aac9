//! Objects as they were found, sense or no sense, and no more of them than somebody looks at: there may be a hundred
//! thousand, and `metadata` as Kubernetes has it would be most of what each takes.

use std::fmt::Debug;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::Timestamp;
use crate::check::{Checked, Problem};

/// Most characters of what is wrong that are kept. An object may be wrong at any length, and is told so in its own status:
/// with a megabyte quoted there it would be larger than can be stored.
const MAX_TOLD: usize = 512;

/// A kind of object: what it is made of.
pub trait Parts {
    /// What somebody wants.
    type Spec: Checked + DeserializeOwned + Debug + Clone + PartialEq;
    /// What became of it.
    type Status: DeserializeOwned + Debug + Clone + PartialEq;
}

/// An object that somebody wrote.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed<T: Parts> {
    /// It makes sense.
    Readable(Object<T>),
    /// It does not: its rules were skipped, or another version of the resource stored it.
    Unreadable(Unreadable),
}

/// An object that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<T: Parts> {
    /// What Kubernetes says of it.
    pub about: About,
    /// What its owner wants.
    pub spec: T::Spec,
    /// What was told of it last, if that makes sense: it is never the only copy of anything.
    pub status: Option<Box<T::Status>>,
}

/// What is kept of an object's metadata, besides its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct About {
    /// Which object of this name.
    pub uid: Option<Box<str>>,
    /// Rises with each change of the spec.
    pub generation: Option<i64>,
    /// When it was made. In a folder nobody knows.
    #[serde(rename = "creationTimestamp")]
    pub created: Option<Timestamp>,
    /// What was noted at it.
    pub annotations: Annotations,
}

/// Annotations, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations(Box<[(Box<str>, Box<str>)]>);

impl Annotations {
    /// An annotation's text.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.0.get(at).map(|(_, text)| &**text)
    }

    /// Those alone whose names are wanted.
    #[must_use]
    pub fn retain(self, wanted: impl Fn(&str) -> bool) -> Self {
        Self(self.0.into_iter().filter(|(name, _)| wanted(name)).collect())
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;

        impl<'de> Visitor<'de> for Reading {
            type Value = Annotations;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a map of texts")
            }

            fn visit_unit<E>(self) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut all: Vec<(Box<str>, Box<str>)> = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                // Of two with one name the last counts, as in every map.
                all.reverse();
                all.sort_by(|(one, _), (other, _)| one.cmp(other));
                all.dedup_by(|(later, _), (first, _)| later == first);
                Ok(Annotations(all.into()))
            }
        }

        deserializer.deserialize_any(Reading)
    }
}

/// What can be told of an object that makes no sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Every API server checks what it says here.
    pub about: About,
    /// Which member, e.g. `spec.access.denyNetworks[0]`.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
    /// `spec.enabled`, where it is a boolean: switching off works whatever else is wrong.
    pub enabled: Option<bool>,
    /// `spec.installation`, where it is a text: so that the installation that serves it tells it what is wrong.
    pub installation: Option<String>,
    /// Its status as it stands there. See [`Unreadable::status`].
    pub status: Option<Value>,
}

impl Unreadable {
    /// What was told of it last, if that makes sense: which names it had, for one.
    pub fn status<S: DeserializeOwned>(&self) -> Option<S> {
        self.status.as_ref().and_then(|status| S::deserialize(status).ok())
    }

    /// An object whose spec makes no sense.
    pub fn new(about: About, spec: &Value, status: Option<Value>, problem: Problem) -> Self {
        let (path, problem) = (shortened(problem.path), shortened(problem.problem));
        let enabled = spec.get("enabled").and_then(Value::as_bool);
        let installation = spec.get("installation").and_then(Value::as_str).map(str::to_owned);
        Self { about, path, problem, enabled, installation, status }
    }
}

fn shortened(text: String) -> String {
    // No text has more characters than bytes.
    if text.len() <= MAX_TOLD { text } else { text.chars().take(MAX_TOLD).chain("...".chars()).collect() }
}

impl<T: Parts> Observed<T> {
    /// Reads an object; `Err` only where there is no metadata to speak of.
    pub fn read(mut object: Value) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(rename = "name")]
            _name: String,
            #[serde(flatten)]
            about: About,
        }
        let metadata = object.get("metadata").ok_or("metadata is missing")?;
        let Named { about, .. } =
            Named::deserialize(metadata).map_err(|error| format!("metadata.name or beside it: {error}"))?;
        let mut take = |name: &str| object.get_mut(name).map(Value::take);
        Ok(Self::of(about, &take("spec").unwrap_or_default(), take("status")))
    }

    /// Reads what an object says from its text, if it makes sense. Otherwise [`Observed::of`] tells what is wrong.
    pub fn sensible(about: About, spec: &str) -> Result<Self, About> {
        match serde_json::from_str::<T::Spec>(spec) {
            Ok(spec) if spec.check().is_ok() => Ok(Self::Readable(Object { about, spec, status: None })),
            _ => Err(about),
        }
    }

    /// Reads what an object says.
    pub fn of(about: About, spec: &Value, status: Option<Value>) -> Self {
        match read_spec::<T::Spec>(spec) {
            Ok(spec) => {
                let status = status.and_then(|status| T::Status::deserialize(status).ok());
                Self::Readable(Object { about, spec, status: status.map(Box::new) })
            }
            Err(problem) => Self::Unreadable(Unreadable::new(about, spec, status, problem)),
        }
    }

    /// What Kubernetes says of it.
    pub fn about(&self) -> &About {
        match self {
            Self::Readable(object) => &object.about,
            Self::Unreadable(unreadable) => &unreadable.about,
        }
    }
}

fn read_spec<S: Checked + DeserializeOwned>(spec: &Value) -> Result<S, Problem> {
    // Where nothing is wrong, nobody has to know where.
    let Ok(read) = S::deserialize(spec) else {
        return Err(what_is_wrong::<S>(spec));
    };
    read.check().map(|()| read)
}

fn what_is_wrong<S: DeserializeOwned>(spec: &Value) -> Problem {
    match serde_path_to_error::deserialize::<_, S>(spec) {
        Ok(_) => Problem { path: "spec".to_owned(), problem: "makes no sense".to_owned() },
        Err(error) => {
            let inside = error.path().to_string();
            let path = match inside.as_str() {
                "." => "spec".to_owned(),
                list if list.starts_with('[') => format!("spec{list}"),
                member => format!("spec.{member}"),
            };
            Problem { path, problem: error.into_inner().to_string() }
        }
    }
}
