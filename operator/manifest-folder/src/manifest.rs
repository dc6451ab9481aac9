//! From a document to an object of ours, with everything that is wrong with it.

use std::sync::Arc;

use resources::{Installation, Observed, Parts, Problem, RemoteInstance, Unreadable, VersionBlock};
use route_table::InstanceId;
use serde_json::{Value, json};

use crate::document::{Kind, Node, Places};
use crate::fault::{Fault, FaultKind, Place};
use crate::head::{Whose, head, whose, wrong_head};
use crate::types::{self, find};
use crate::validate::{self, Broken};

/// The namespace of an instance that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

pub(crate) const INSTANCE: &str = "RemoteInstance";
pub(crate) const BLOCK: &str = "VersionBlock";
pub(crate) const INSTALLATION: &str = "Installation";

/// Lists inside lists: nobody writes them, but nobody shall end the process with them either.
const MAX_LISTS: usize = 4;

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A `RemoteInstance`.
    Instance(InstanceId),
    /// A `VersionBlock`.
    Block(String),
    /// The installation: a folder has one.
    Installation,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Instance(id) => write!(formatter, "{INSTANCE} {id}"),
            Self::Block(name) => write!(formatter, "{BLOCK} {name}"),
            Self::Installation => formatter.write_str("the Installation"),
        }
    }
}

/// An object that stands in a file.
#[derive(Debug, Clone)]
pub struct Object {
    /// Which.
    pub subject: Subject,
    /// Where its name stands.
    pub place: Place,
    /// The document, without what only an API server writes.
    pub document: Arc<Value>,
    /// Why it makes no sense: the member, and what is wrong with it.
    pub problem: Option<(String, String)>,
    pub(crate) node: Arc<Node>,
    places: Places,
}

impl Object {
    /// Where a part of it stands.
    pub(crate) fn place_of(&self, node: &Node) -> Place {
        self.places.of(node)
    }
}

/// A document of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassedOver {
    /// Its kind.
    pub kind: String,
    /// Where it stands.
    pub place: String,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct FileReading {
    /// Objects of ours.
    pub objects: Vec<Object>,
    /// Documents of others.
    pub passed_over: Vec<PassedOver>,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// It may hold objects that nobody could read: those it held before are not gone.
    pub incomplete: bool,
}

impl FileReading {
    /// Is it a file that could not be read, as the other one?
    pub(crate) fn is_same_failure(&self, other: &Self) -> bool {
        let nothing = |file: &Self| file.objects.is_empty() && file.passed_over.is_empty() && file.incomplete;
        nothing(self) && nothing(other) && self.faults == other.faults
    }

    /// Takes a document in.
    pub(crate) fn add(&mut self, document: Node, places: &Places) {
        self.add_nested(document, places, 0);
    }

    fn add_nested(&mut self, document: Node, places: &Places, depth: usize) {
        let Node { kind: Kind::Map(_), .. } = &document else {
            let told =
                format!("a manifest is a mapping with apiVersion and kind, not {}", document.kind.name());
            self.fault_without_object(Fault::at(FaultKind::WrongType, places.of(&document), told));
            return;
        };
        let api_version = document.get("apiVersion").and_then(Node::text).unwrap_or_default().to_owned();
        let kind = document.get("kind").and_then(Node::text).unwrap_or_default().to_owned();
        if kind.ends_with("List") && !document.get("items").map_or(&[][..], Node::items).is_empty() {
            if depth >= MAX_LISTS {
                let place = places.of(&document);
                self.fault_without_object(Fault::at(
                    FaultKind::TooMuch,
                    place,
                    "lists inside lists inside lists",
                ));
                return;
            }
            for item in document.get("items").map_or(&[][..], Node::items) {
                self.add_nested(item.clone(), places, depth + 1);
            }
            return;
        }
        match whose(&api_version, &kind) {
            Whose::Ours => self.add_ours(document, &kind, places),
            Whose::Others => {
                let place = places.of(&document).to_string();
                let kind = if kind.is_empty() { "a document without kind".to_owned() } else { kind };
                self.passed_over.push(PassedOver { kind: kind.chars().take(80).collect(), place });
            }
            Whose::Wrong => self.fault_without_object(wrong_head(&document, &api_version, &kind, places)),
        }
    }

    /// A fault after which nobody knows which object was meant.
    fn fault_without_object(&mut self, fault: Fault) {
        self.faults.push(fault);
        self.incomplete = true;
    }

    fn add_ours(&mut self, document: Node, kind: &str, places: &Places) {
        let mut faults = Vec::new();
        let subject = head(&document, kind, places, &mut faults);
        let document = drop_what_servers_write(document);
        let value = whole(&document, kind);
        if kind == INSTALLATION {
            faults.extend(types::installation(&document, places));
        } else {
            faults.extend(body(&document, kind, places));
        }
        faults.sort_by(|one, two| one.order().cmp(&two.order()));
        let left = types::left_to_the_planner(&document, kind, places);
        let is_left = |fault: &&Fault| left.iter().any(|left| left.place == fault.place);
        let problem = faults.iter().find(|fault| !is_left(fault)).map(problem_of);
        self.faults.append(&mut faults);
        match subject {
            Some(subject) => {
                let place = name_place(&document, places);
                let (document, node) = (Arc::new(value), Arc::new(document));
                self.objects.push(Object { subject, place, document, problem, node, places: places.clone() });
            }
            None => self.incomplete = true,
        }
    }
}

/// What is wrong with the spec of a resource.
fn body(document: &Node, kind: &str, places: &Places) -> Vec<Fault> {
    let Some((key, spec)) = document.entry("spec") else {
        let fault = Fault::at(FaultKind::MissingField, name_place(document, places), "spec is missing");
        return vec![fault.help("a resource without spec says nothing")];
    };
    let rules = match validate::rules_of(kind) {
        Ok(rules) => rules,
        Err(broken) => return vec![Fault::of_file(FaultKind::Unreadable, places.source().name(), broken)],
    };
    let mut of_schema = validate::check(spec, rules, "spec", places);
    point_at_key(&mut of_schema, spec, places, &places.of_key(key));
    let mut of_types = if kind == INSTANCE {
        types::all::<RemoteInstance>(document, places, &of_schema)
    } else {
        types::all::<VersionBlock>(document, places, &of_schema)
    };
    of_types.extend(types::left_to_the_planner(document, kind, places));
    types::together(of_schema, of_types)
}

/// The member and the problem of a fault: `spec.tunnels is 0; ...`, `spec.hostname: ...`. What to do about it is told in
/// a status, too.
pub(crate) fn problem_of(fault: &Fault) -> (String, String) {
    let (path, problem) = fault.message.split_once([' ', ':']).unwrap_or((&fault.message, ""));
    let problem = problem.trim_start();
    let problem = match &fault.help {
        Some(help) => format!("{problem}; {help}"),
        None => problem.to_owned(),
    };
    (path.to_owned(), problem)
}

fn name_place(document: &Node, places: &Places) -> Place {
    let name = find(document, "metadata.name").or_else(|| document.get("kind"));
    name.map_or_else(|| places.of(document), |name| places.of(name))
}

/// A spec in block style has no place of its own: what is missing in it is told at its key.
fn point_at_key(broken: &mut [Broken], spec: &Node, places: &Places, key: &Place) {
    let inside = places.of(spec);
    for Broken { fault, .. } in broken {
        if fault.kind == FaultKind::MissingField && fault.place.as_ref() == Some(&inside) {
            fault.place = Some(key.clone());
        }
    }
}

/// `kubectl get -o yaml` writes a status and what only an API server knows; people commit that.
fn drop_what_servers_write(mut document: Node) -> Node {
    const KEPT: &[&str] = &["name", "namespace", "labels", "annotations"];
    if let Kind::Map(entries) = &mut document.kind {
        entries.retain(|(key, _)| key.name != "status");
        for (key, value) in entries {
            if let (true, Kind::Map(metadata)) = (key.name == "metadata", &mut value.kind) {
                metadata.retain(|(key, value)| KEPT.contains(&key.name.as_str()) && value.kind != Kind::Null);
            }
        }
    }
    document
}

/// The document with a namespace, where one belongs.
fn whole(document: &Node, kind: &str) -> Value {
    let mut value = document.to_json();
    if kind == INSTANCE
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.entry("namespace").or_insert_with(|| json!(DEFAULT_NAMESPACE));
    }
    value
}

/// Reads what the folder's installation says.
pub(crate) fn read_installation(document: &Value) -> Option<Installation> {
    serde_json::from_value(document.clone()).ok()
}

/// An object with everything that is known of it, as the planner takes it.
pub(crate) fn observed<T: Parts>(document: Value, problem: Option<&(String, String)>) -> Option<Observed<T>> {
    let Some((path, problem)) = problem else { return Observed::read(document).ok() };
    let problem = Problem { path: path.clone(), problem: problem.clone() };
    let (spec, status) = (document.get("spec").cloned().unwrap_or_default(), document.get("status").cloned());
    let about = Observed::<T>::read(document).ok()?.about().clone();
    Some(Observed::Unreadable(Unreadable::new(about, &spec, status, problem)))
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
