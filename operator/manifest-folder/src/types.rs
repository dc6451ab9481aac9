//! What the types of `resources` refuse, with its place: networks, host names, fingerprints, ranges.
//!
//! A type stops at its first mistake. Here the mistake is noted, taken out, and the rest is read again, until nothing
//! is left to tell.

use std::net::Ipv6Addr;

use policy::{Product, VersionRange};
use resources::{Checked, Installation, Observed, Parts, did_you_mean};
use route_table::{Cidr, SESSION_LABEL};
use serde_json::{Value, json};

use crate::document::{Kind, Node, Places};
use crate::fault::{Fault, FaultKind};
use crate::manifest::BLOCK;
use crate::validate::{Broken, member, unknown_field};

/// Most mistakes of one document that are told by the types.
const MAX_MISTAKES: usize = 32;

/// Everything that the type refuses. What the schema refused already is taken out before.
pub(crate) fn all<T: Parts>(written: &Node, places: &Places, known: &[Broken]) -> Vec<Fault> {
    let mut document = written.clone();
    let mut emptied = Vec::new();
    for known in known.iter().filter(|known| !known.vague) {
        take_out(&mut document, places, &known.fault);
        emptied.push(parent(known.fault.member()).to_owned());
    }
    repeatedly(written, document, emptied, places, |mut value| {
        // What is wrong with the metadata is told by others, and the type shall not stumble over it.
        value.as_object_mut().map(|members| members.insert("metadata".to_owned(), json!({"name": "any"})));
        match Observed::<T>::read(value) {
            Ok(Observed::Readable(_)) => None,
            Ok(Observed::Unreadable(wrong)) => Some((wrong.path, wrong.problem)),
            Err(problem) => Some(("metadata".to_owned(), problem)),
        }
    })
}

/// Everything that is wrong with an `Installation`, which has no schema of an API server.
pub(crate) fn installation(document: &Node, places: &Places) -> Vec<Fault> {
    repeatedly(document, document.clone(), Vec::new(), places, |value| {
        let read: Result<Installation, _> = serde_path_to_error::deserialize(&value);
        match read {
            Ok(installation) => installation.spec.check().err().map(|wrong| (wrong.path, wrong.problem)),
            Err(error) => Some((error.path().to_string(), error.into_inner().to_string())),
        }
    })
}

/// Mistakes that an API server refuses and that make no nonsense of the rest: they are told, and the planner, who knows
/// them too, goes on with the object. A range nobody can read must not disarm the other ranges of its block.
pub(crate) fn left_to_the_planner(document: &Node, kind: &str, places: &Places) -> Vec<Fault> {
    if kind == BLOCK {
        return ranges(document, places);
    }
    let mut faults = mapped_networks(document, places);
    let reserved = find(document, "spec.hostname").filter(|node| node.text() == Some(SESSION_LABEL));
    faults.extend(reserved.map(|node| {
        let message =
            format!("spec.hostname: {SESSION_LABEL:?} is reserved: agents get their sessions at this name");
        Fault::at(FaultKind::InvalidValue, places.of(node), message).help("choose another label")
    }));
    faults
}

/// Networks of IPv4 written as IPv6.
fn mapped_networks(document: &Node, places: &Places) -> Vec<Fault> {
    let mut faults = Vec::new();
    for list in ["spec.access.allowNetworks", "spec.access.denyNetworks"] {
        for (at, node) in find(document, list).map_or(&[][..], Node::items).iter().enumerate() {
            let text = node.text().unwrap_or_default();
            let address = text.split('/').next().and_then(|address| address.parse::<Ipv6Addr>().ok());
            if let (true, Ok(network)) = (address.is_some_and(is_mapped), text.parse::<Cidr>()) {
                let message = format!("{list}[{at}]: {text:?} is IPv4 written as IPv6");
                let fault = Fault::at(FaultKind::InvalidValue, places.of(node), message);
                faults.push(fault.help(format!("write {network}")));
            }
        }
    }
    faults
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// Ranges of a block that cannot be read.
fn ranges(document: &Node, places: &Places) -> Vec<Fault> {
    let product = find(document, "spec.product").and_then(Node::text).map(str::parse::<Product>);
    let scheme = product.transpose().ok().flatten().unwrap_or_default().scheme();
    let mut faults = Vec::new();
    for (at, node) in find(document, "spec.versions").map_or(&[][..], Node::items).iter().enumerate() {
        if let Some(Err(error)) = node.text().map(|text| VersionRange::parse(text, scheme)) {
            let message = format!("spec.versions[{at}]: {error}");
            faults.push(Fault::at(FaultKind::InvalidValue, places.of(node), message));
        }
    }
    faults
}

/// Reads, notes the mistake, takes it out, and reads again.
fn repeatedly(
    written: &Node,
    mut document: Node,
    mut emptied: Vec<String>,
    places: &Places,
    read: impl Fn(Value) -> Option<(String, String)>,
) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    while let Some((path, problem)) = read(document.to_json()) {
        // What misses a part that was taken out is no mistake of the writer.
        if faults.len() >= MAX_MISTAKES || emptied.contains(&path) || is_in(written, &path, &problem) {
            break;
        }
        let fault = fault(&document, places, &path, &problem);
        let taken = remove(&mut document, &path);
        faults.push(fault);
        if !taken {
            break;
        }
        emptied.push(parent(&path).to_owned());
    }
    faults
}

fn fault(document: &Node, places: &Places, path: &str, problem: &str) -> Fault {
    let problem = problem.trim_end_matches('.');
    let place = place_of(document, places, path);
    if let Some((name, known)) = unknown_by_type(problem) {
        let place = key_of(document, path).map_or(place, |key| places.of_key(key));
        return unknown_field(path, place, name, known.iter().copied());
    }
    if let Some(path) = missing(path, problem) {
        return Fault::at(FaultKind::MissingField, place, format!("{path} is missing"));
    }
    let written = place.text().to_owned();
    if let Some(types) = problem.strip_prefix("invalid type: ") {
        let fault = Fault::at(FaultKind::WrongType, place, format!("{path}: is {types}"));
        let quoted = types.ends_with("expected a string") || types.contains("expected a borrowed string");
        return if quoted { fault.help(format!("quote it: \"{written}\"")) } else { fault };
    }
    let mut fault = Fault::at(FaultKind::InvalidValue, place, format!("{path}: {problem}"));
    if let Some((_, known)) = unknown_variant(problem) {
        fault.help = did_you_mean(&written, known.iter().copied());
    }
    fault
}

/// The path of a missing field.
fn missing(path: &str, problem: &str) -> Option<String> {
    let field = problem.strip_prefix("missing field `")?.split('`').next()?;
    Some(member(if path == "." { "" } else { path }, field))
}

/// Is a field that is missing now in what was written?
fn is_in(written: &Node, path: &str, problem: &str) -> bool {
    missing(path, problem).is_some_and(|path| find(written, &path).is_some())
}

/// ``unknown field `x`, expected one of `a`, `b` `` as serde's derive writes it.
fn unknown_by_type(problem: &str) -> Option<(&str, Vec<&str>)> {
    quoted_words(problem.strip_prefix("unknown field ")?)
}

fn unknown_variant(problem: &str) -> Option<(&str, Vec<&str>)> {
    quoted_words(problem.strip_prefix("unknown variant ")?)
}

fn quoted_words(text: &str) -> Option<(&str, Vec<&str>)> {
    let mut words = text.split('`').skip(1).step_by(2);
    Some((words.next()?, words.collect()))
}

/// Where a member stands; one that is not there, at the nearest thing around it.
fn place_of(document: &Node, places: &Places, path: &str) -> crate::fault::Place {
    let mut path = path;
    loop {
        if let Some(node) = find(document, path) {
            let scalar = !matches!(node.kind, Kind::List(_) | Kind::Map(_) | Kind::Null);
            let key = key_of(document, path).map(|key| places.of_key(key));
            return match key {
                Some(key) if !scalar => key,
                _ => places.of(node),
            };
        }
        if path.is_empty() || path == "." {
            return document.get("kind").map_or_else(|| places.of(document), |kind| places.of(kind));
        }
        path = parent(path);
    }
}

/// Both kinds of faults, one for a place.
pub(crate) fn together(of_schema: Vec<Broken>, of_types: Vec<Fault>) -> Vec<Fault> {
    let same = |one: &Fault, two: &Fault| one.place == two.place;
    let said_better =
        |broken: &Broken| broken.vague && of_types.iter().any(|typed| same(typed, &broken.fault));
    let mut all: Vec<Fault> =
        of_schema.into_iter().filter(|broken| !said_better(broken)).map(|broken| broken.fault).collect();
    for typed in of_types {
        if !all.iter().any(|fault| same(fault, &typed)) {
            all.push(typed);
        }
    }
    all
}

/// The steps of `spec.access.denyNetworks[0]`.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty())
}

/// `spec.access.denyNetworks[0]` -> `spec.access.denyNetworks`
fn parent(path: &str) -> &str {
    path.rfind(['.', '[']).and_then(|end| path.get(..end)).unwrap_or_default()
}

/// The value at a path. Keys with dots are not found; no `spec` has any.
pub(crate) fn find<'n>(document: &'n Node, path: &str) -> Option<&'n Node> {
    steps(path).try_fold(document, |node, step| match &node.kind {
        Kind::List(items) => items.get(step.parse::<usize>().ok()?),
        _ => node.get(step),
    })
}

fn key_of<'n>(document: &'n Node, path: &str) -> Option<&'n crate::document::Key> {
    let last = steps(path).last()?;
    find(document, parent(path))?.entry(last).map(|(key, _)| key)
}

/// Takes the value at a path out. A member of a mapping goes with its key.
fn remove(document: &mut Node, path: &str) -> bool {
    let all: Vec<&str> = steps(path).collect();
    let Some((last, front)) = all.split_last() else { return false };
    let mut node = document;
    for step in front {
        let next = match &mut node.kind {
            Kind::List(items) => step.parse::<usize>().ok().and_then(|at| items.get_mut(at)),
            Kind::Map(entries) => {
                entries.iter_mut().find(|(key, _)| key.name == *step).map(|(_, value)| value)
            }
            _ => None,
        };
        let Some(next) = next else { return false };
        node = next;
    }
    match &mut node.kind {
        Kind::List(items) => match last.parse::<usize>() {
            Ok(at) if at < items.len() => {
                items.remove(at);
                true
            }
            _ => false,
        },
        Kind::Map(entries) => {
            let before = entries.len();
            entries.retain(|(key, _)| key.name != *last);
            entries.len() < before
        }
        _ => false,
    }
}

/// Takes out what a fault is about.
fn take_out(document: &mut Node, places: &Places, fault: &Fault) {
    let Some(place) = &fault.place else { return };
    retain(document, &|node| places.of(node).offset != place.offset, &|key| {
        places.of_key(key).offset != place.offset
    });
}

fn retain(node: &mut Node, keep: &dyn Fn(&Node) -> bool, keep_key: &dyn Fn(&crate::document::Key) -> bool) {
    let scalar = |node: &Node| !matches!(node.kind, Kind::List(_) | Kind::Map(_));
    match &mut node.kind {
        Kind::List(items) => {
            items.retain(|item| !scalar(item) || keep(item));
            for item in items {
                retain(item, keep, keep_key);
            }
        }
        Kind::Map(entries) => {
            entries.retain(|(key, value)| keep_key(key) && (!scalar(value) || keep(value)));
            for (_, value) in entries {
                retain(value, keep, keep_key);
            }
        }
        _ => {}
    }
}
