//! Reads a routes file, JSON or YAML, route by route.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::Track;

use crate::error::{Position, RouteError, TableError};
use crate::raw::{RawRoute, Shared};
use crate::{HostName, MAX_FILE_BYTES, MAX_ROUTES, Route, RouteTable};

/// How a message speaks of the file.
const WHOLE_FILE: &str = "the file";

/// The members of the file.
const MEMBERS: &[&str] = &["revision", "domain", "routes"];

/// Most members of one route that are named as not understood; more say nothing more.
const MAX_NOT_UNDERSTOOD: usize = 16;

impl RouteTable {
    /// Reads a table from JSON or YAML.
    ///
    /// One route that makes no sense makes the whole file invalid: whoever asked keeps the table they have. A
    /// route with members this build does not know is no mistake but may hide a restriction: it stays in the
    /// table and is refused (see [`Route::refusal`]). A file without `routes` is invalid, so that a file caught
    /// half written does not cut everybody off.
    pub fn parse(text: &str) -> Result<Self, TableError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(TableError::TooLarge { bytes: text.len() });
        }
        let text = text.trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            return Err(TableError::Malformed {
                position: None,
                field: WHOLE_FILE.to_owned(),
                problem: "is empty; write `routes: []` if there shall be no routes".to_owned(),
            });
        }
        let read = if looks_like_json(text) { read_json(text)? } else { read_yaml(text)? };
        let File { revision, domain, routes } = read;
        Self::from_routes(revision, domain, routes)
    }
}

/// What a file says.
struct File {
    revision: u64,
    domain: Option<HostName>,
    routes: Vec<Route>,
}

/// JSON begins with a brace and a quoted name; YAML may begin with a brace, too.
fn looks_like_json(text: &str) -> bool {
    text.trim_start().strip_prefix('{').is_some_and(|inside| inside.trim_start().starts_with(['"', '}']))
}

/// What is learned while reading, besides the values.
#[derive(Default)]
struct Notes {
    /// Members of the present route that nobody asked for.
    ignored: RefCell<Vec<String>>,
    /// The route that made no sense.
    fault: RefCell<Option<RouteError>>,
}

fn read_json(text: &str) -> Result<File, TableError> {
    let notes = Notes::default();
    let mut track = Track::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let read = read_with(&mut json, &notes, &mut track).and_then(|file| json.end().map(|()| file));
    read.map_err(|error| {
        let position = Position { line: error.line() as u64, column: error.column() as u64 };
        notes.error(Some(position), track, &error.to_string())
    })
}

fn read_yaml(text: &str) -> Result<File, TableError> {
    let notes = Notes::default();
    let mut track = Track::new();
    let read = serde_yaml::with_deserializer_from_str_with_options(text, yaml_options(), |yaml| {
        read_with(yaml, &notes, &mut track)
    });
    read.map_err(|error| {
        let position = error.location().map(|at| Position { line: at.line(), column: at.column() });
        notes.error(position, track, &error.without_snippet().to_string())
    })
}

/// Bounds for a file that may be as large as [`MAX_FILE_BYTES`]. Anchors are welcome (block lists repeat), what
/// they expand to stays bounded.
fn yaml_options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_events: 64_000_000,
            max_nodes: 32_000_000,
            max_total_scalar_bytes: MAX_FILE_BYTES,
            enforce_alias_anchor_ratio: false,
        },
        with_snippet: false,
    }
}

impl Notes {
    /// The error, once: both formats put the place behind their message, here it goes in front.
    fn error(&self, position: Option<Position>, track: Track, message: &str) -> TableError {
        if let Some(source) = self.fault.take() {
            return TableError::Route { position, source };
        }
        let path = track.path().to_string();
        let field = if path == "." { WHOLE_FILE.to_owned() } else { path };
        let line = message.lines().next().unwrap_or_default();
        let problem = line.rsplit_once(" at line ").map_or(line, |(problem, _)| problem).to_owned();
        TableError::Malformed { position, field, problem }
    }
}

fn read_with<'de, D: Deserializer<'de>>(
    format: D,
    notes: &Notes,
    track: &mut Track,
) -> Result<File, D::Error> {
    let mut note_ignored = |path: serde_ignored::Path<'_>| {
        let mut ignored = notes.ignored.borrow_mut();
        if ignored.len() < MAX_NOT_UNDERSTOOD {
            ignored.push(path_in_route(&path.to_string()));
        }
    };
    let tracked = serde_path_to_error::Deserializer::new(format, track);
    let listened = serde_ignored::Deserializer::new(tracked, &mut note_ignored);
    listened.deserialize_map(FileVisitor { notes })
}

/// `routes.3.limits.maxBandwidth` -> `limits.maxBandwidth`
fn path_in_route(path: &str) -> String {
    let inside = path.strip_prefix("routes.").and_then(|path| path.split_once('.'));
    inside.map_or(path, |(_, path)| path).chars().take(128).collect()
}

struct FileVisitor<'n> {
    notes: &'n Notes,
}

impl<'de> Visitor<'de> for FileVisitor<'_> {
    type Value = File;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a table of routes: revision, domain and routes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
        let (mut revision, mut domain, mut routes) = (None, None, None);
        while let Some(member) = map.next_key::<String>()? {
            let duplicate = match member.as_str() {
                "revision" => revision.replace(map.next_value::<u64>()?).is_some(),
                "domain" => {
                    let text = map.next_value::<Option<String>>()?;
                    let read = text.map(|text| text.parse::<HostName>()).transpose();
                    domain
                        .replace(read.map_err(|error| A::Error::custom(format_args!("domain: {error}")))?)
                        .is_some()
                }
                "routes" => routes.replace(map.next_value_seed(RoutesSeed { notes: self.notes })?).is_some(),
                other => return Err(A::Error::unknown_field(other, MEMBERS)),
            };
            if duplicate {
                return Err(A::Error::custom(format_args!("{member} stands there twice")));
            }
        }
        Ok(File {
            revision: revision.unwrap_or_default(),
            domain: domain.flatten(),
            routes: routes.ok_or_else(|| {
                A::Error::custom("has no routes; write `routes: []` if there shall be none")
            })?,
        })
    }
}

/// Reads the routes one by one, so that the text of all of them never stands in memory a second time.
struct RoutesSeed<'n> {
    notes: &'n Notes,
}

impl<'de> DeserializeSeed<'de> for RoutesSeed<'_> {
    type Value = Vec<Route>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Route>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RoutesSeed<'_> {
    type Value = Vec<Route>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of routes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Route>, A::Error> {
        let mut shared = Shared::default();
        let mut routes = Vec::new();
        while let Some(raw) = list.next_element::<RawRoute>()? {
            if routes.len() >= MAX_ROUTES {
                return Err(A::Error::custom(TableError::TooManyRoutes));
            }
            match raw.into_route(self.notes.ignored.take(), &mut shared) {
                Ok(route) => routes.push(route),
                Err(fault) => {
                    let error = A::Error::custom(&fault);
                    self.notes.fault.replace(Some(fault));
                    return Err(error);
                }
            }
        }
        Ok(routes)
    }
}
