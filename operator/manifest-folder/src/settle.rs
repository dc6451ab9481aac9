//! From what stands in the files to the objects in force.
//!
//! An object that is invalid holds nobody else up: a typing mistake beside a new version block must not keep the
//! block from being in force, and one beside `enabled: false` must not keep an instance on the air. So:
//!
//! | the folder | the object in force |
//! |---|---|
//! | a valid document | as written |
//! | an invalid one whose name can be read | unreadable: the planner keeps its last good route where that is safe; switching off and blocking always win |
//! | two documents of one object | unreadable, and switched off if either says so |
//! | a document that cannot be read at all | objects last seen in that file stay as they were |
//! | a file or folder that cannot be read | the same |
//! | a change of what cannot be changed | unreadable |
//! | an invalid installation | the last good one; without one there is no plan |
//! | no document any more | gone |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use resources::{Installation, InstallationSpec};
use serde_json::Value;

use crate::fault::{Fault, FaultKind, Place};
use crate::files::Reading;
use crate::manifest::{Object, PassedOver, Subject, problem_of, read_installation};
use crate::types::find;

/// The last good form of each object.
pub type LastGood = BTreeMap<Subject, Good>;

/// The last good form of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Good {
    /// The file it stood in.
    pub file: String,
    /// The document.
    pub document: Arc<Value>,
}

/// An object in force.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The file it stands in.
    pub file: String,
    /// Where its name stands; nowhere, where it stays because its file cannot be read.
    pub place: Option<Place>,
    /// The document.
    pub document: Arc<Value>,
    /// Why it makes no sense: the member, and what is wrong with it.
    pub problem: Option<(String, String)>,
}

/// What the folder says about the installation.
#[derive(Debug, Clone, PartialEq)]
pub enum InstallationChoice {
    /// This.
    Stated(Box<Stated>),
    /// Nothing: the default.
    Unstated,
    /// Nobody knows: its document makes no sense, and there was none before.
    Unknown,
}

impl InstallationChoice {
    /// The last good one.
    pub(crate) fn last(good: &LastGood) -> Self {
        good.get(&Subject::Installation).and_then(|last| Self::read(&last.document)).unwrap_or(Self::Unstated)
    }

    fn read(document: &Value) -> Option<Self> {
        let Installation { metadata, spec, .. } = read_installation(document)?;
        let states_public_port = document.pointer("/spec/publicPort").is_some();
        Some(Self::Stated(Box::new(Stated { name: metadata.name, spec, states_public_port })))
    }
}

/// An installation as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Stated {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub spec: InstallationSpec,
    /// Does it say which port is in URLs?
    pub states_public_port: bool,
}

/// All objects in force, and everything that is wrong.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Instances and version blocks.
    pub objects: BTreeMap<Subject, InForce>,
    /// The installation.
    pub installation: InstallationChoice,
    /// Everything that is wrong, file by file.
    pub faults: Vec<Fault>,
    /// Documents of others.
    pub passed_over: Vec<PassedOver>,
    /// What to remember for the next time.
    pub good: LastGood,
}

/// Puts the files together, given what was good before.
pub fn settle(reading: &Reading, before: &LastGood) -> Settled {
    let mut faults = reading.faults.clone();
    let mut passed_over = Vec::new();
    let mut objects: BTreeMap<Subject, InForce> = BTreeMap::new();
    let mut incomplete = BTreeSet::new();
    for (name, file) in &reading.files {
        faults.extend(file.faults.iter().cloned());
        passed_over.extend(file.passed_over.iter().cloned());
        if file.incomplete {
            incomplete.insert(name.as_str());
        }
        for object in &file.objects {
            match objects.get_mut(&object.subject) {
                Some(first) => faults.push(second(first, object)),
                None => drop(objects.insert(object.subject.clone(), in_force(object, before, &mut faults))),
            }
        }
    }
    for (subject, good) in before {
        let may_be_there = reading.incomplete || incomplete.contains(good.file.as_str());
        if may_be_there && !objects.contains_key(subject) {
            let Good { file, document } = good.clone();
            objects.insert(subject.clone(), InForce { file, place: None, document, problem: None });
        }
    }
    let installation = installation(&mut objects, before, reading.incomplete || !incomplete.is_empty());
    let good = remember(&objects, &installation, before);
    objects.remove(&Subject::Installation);
    faults.sort_by(|one, two| one.order().cmp(&two.order()));
    faults.dedup();
    Settled { objects, installation, faults, passed_over, good }
}

fn in_force(object: &Object, before: &LastGood, faults: &mut Vec<Fault>) -> InForce {
    let mut problem = object.problem.clone();
    let last = before.get(&object.subject).filter(|_| problem.is_none());
    if let Some(fault) = last.and_then(|last| changed_for_good(object, last)) {
        problem = Some(problem_of(&fault));
        faults.push(fault);
    }
    let file = object.place.source.name().to_owned();
    InForce { file, place: Some(object.place.clone()), document: Arc::clone(&object.document), problem }
}

/// A second document of the same object: which one was meant, nobody can tell, but switching off wins.
fn second(first: &mut InForce, object: &Object) -> Fault {
    let message = match object.subject {
        Subject::Installation => "a folder has one Installation; this is another one".to_owned(),
        ref subject => format!("there are two documents of {subject}"),
    };
    first.problem = Some(("metadata.name".to_owned(), message.clone()));
    let off = |document: &Value| document.pointer("/spec/enabled").and_then(Value::as_bool) == Some(false);
    if off(&object.document) && !off(&first.document) {
        first.document = Arc::clone(&object.document);
    }
    let fault = Fault::at(FaultKind::SameName, object.place.clone(), message).help("remove one of them");
    match &first.place {
        Some(place) => fault.label("again here").other(place.clone(), "first here"),
        None => fault,
    }
}

/// What a server would refuse to change. To leave a hostname out gives it up; that is allowed.
fn changed_for_good(object: &Object, last: &Good) -> Option<Fault> {
    let text =
        |document: &Value, path: &str| document.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let both = |path: &str| (text(&last.document, path), text(&object.document, path));
    let tell = |path: &str, message: String, help: &str| {
        let place =
            find(&object.node, path).map_or_else(|| object.place.clone(), |node| object.place_of(node));
        Some(Fault::at(FaultKind::Immutable, place, message).help(help))
    };
    match &object.subject {
        Subject::Instance(_) => {
            let (old, new) = both("/spec/installation");
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            if old != new {
                let message = format!("spec.installation cannot be changed from {old:?} to {new:?}");
                return tell("spec.installation", message, "delete the RemoteInstance and make it again");
            }
            match both("/spec/hostname") {
                (Some(old), Some(new)) if old != new => {
                    let message = format!("spec.hostname cannot be changed from {old:?} to {new:?}");
                    tell("spec.hostname", message, "remove it (which gives the name up), then set another")
                }
                _ => None,
            }
        }
        Subject::Block(_) => {
            let default = || policy::DEFAULT_PRODUCT.to_owned();
            let (old, new) = both("/spec/product");
            let changed = if old.unwrap_or_else(default) != new.unwrap_or_else(default) {
                "spec.product"
            } else if last.document.pointer("/spec/versions") != object.document.pointer("/spec/versions") {
                "spec.versions"
            } else {
                return None;
            };
            tell(changed, format!("{changed} cannot be changed"), "a new finding is a new VersionBlock")
        }
        Subject::Installation => None,
    }
}

fn installation(
    objects: &mut BTreeMap<Subject, InForce>,
    before: &LastGood,
    may_be_hidden: bool,
) -> InstallationChoice {
    let read = InstallationChoice::read;
    let last = before.get(&Subject::Installation);
    match objects.get(&Subject::Installation) {
        Some(stated) if stated.problem.is_none() => {
            read(&stated.document).unwrap_or(InstallationChoice::Unknown)
        }
        Some(_) => last.and_then(|last| read(&last.document)).unwrap_or(InstallationChoice::Unknown),
        // Before the first good reading, a file that nobody can read may hold it.
        None if may_be_hidden && before.is_empty() => InstallationChoice::Unknown,
        None => InstallationChoice::Unstated,
    }
}

fn remember(
    objects: &BTreeMap<Subject, InForce>,
    installation: &InstallationChoice,
    before: &LastGood,
) -> LastGood {
    let mut good = LastGood::new();
    for (subject, object) in objects {
        if object.problem.is_none() {
            let (file, document) = (object.file.clone(), Arc::clone(&object.document));
            good.insert(subject.clone(), Good { file, document });
        } else if let Some(last) = before.get(subject) {
            good.insert(subject.clone(), last.clone());
        }
    }
    if let (InstallationChoice::Stated(_), Some(last)) = (installation, before.get(&Subject::Installation)) {
        good.entry(Subject::Installation).or_insert_with(|| last.clone());
    }
    good
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
