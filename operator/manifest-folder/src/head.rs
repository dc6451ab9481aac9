//! What stands beside a document's `spec`: whose it is, its name, its labels and annotations.

use resources::{API_VERSION, GROUP, did_you_mean};

use crate::document::{Kind, Node, Places};
use crate::fault::{Fault, FaultKind};
use crate::manifest::{BLOCK, DEFAULT_NAMESPACE, INSTALLATION, INSTANCE, Subject};
use crate::validate::{self, member};

/// Our kinds.
const KINDS: &[&str] = &[INSTANCE, BLOCK, INSTALLATION];

pub(crate) enum Whose {
    Ours,
    Others,
    Wrong,
}

/// Whose document it is.
///
/// | apiVersion | kind | whose |
/// |---|---|---|
/// | `latchkey.dev/v1alpha1` | ours | ours |
/// | `latchkey.dev/...`, `latchkey/...`, none | ours | wrong |
/// | `latchkey.dev/...` | any other | wrong |
/// | any other | `RemoteInstance`, `VersionBlock` | wrong: nobody else has such |
/// | any other | any other, `Installation` included | somebody else's |
pub(crate) fn whose(api_version: &str, kind: &str) -> Whose {
    let group = api_version.split('/').next().unwrap_or_default();
    let group_is_ours = group == GROUP || group.eq_ignore_ascii_case("latchkey");
    let kind_is_ours = KINDS.contains(&kind);
    let kind_is_only_ours = kind_is_ours && kind != INSTALLATION;
    if api_version == API_VERSION && kind_is_ours {
        Whose::Ours
    } else if group_is_ours || kind_is_only_ours || (api_version.is_empty() && kind_is_ours) {
        Whose::Wrong
    } else {
        Whose::Others
    }
}

pub(crate) fn wrong_head(document: &Node, api_version: &str, kind: &str, places: &Places) -> Fault {
    let place_of =
        |name: &str| document.get(name).map_or_else(|| places.of(document), |node| places.of(node));
    if kind.is_empty() {
        let message = format!("kind is missing beside apiVersion {api_version:.80}");
        return Fault::at(FaultKind::MissingField, place_of("apiVersion"), message)
            .help(format!("write one of {}", KINDS.join(", ")));
    }
    if api_version.is_empty() {
        return Fault::at(
            FaultKind::MissingField,
            place_of("kind"),
            format!("apiVersion of this {kind:.80} is missing"),
        )
        .help(format!("write `apiVersion: {API_VERSION}`"));
    }
    if KINDS.contains(&kind) {
        return Fault::at(
            FaultKind::WrongVersion,
            place_of("apiVersion"),
            format!("apiVersion: this build does not know {kind} of {api_version:.80}"),
        )
        .help(format!("write `apiVersion: {API_VERSION}`"));
    }
    let mut fault = Fault::at(
        FaultKind::InvalidValue,
        place_of("kind"),
        format!("kind: {api_version:.80} has no {kind:.80}"),
    );
    fault.help =
        did_you_mean(kind, KINDS.iter().copied()).or_else(|| Some(format!("it has {}", KINDS.join(", "))));
    fault
}

/// What stands beside `spec`: names, labels, annotations. `None` where the name is missing.
pub(crate) fn head(document: &Node, kind: &str, places: &Places, faults: &mut Vec<Fault>) -> Option<Subject> {
    const MEMBERS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
    for (key, _) in document.entries() {
        if !MEMBERS.contains(&key.name.as_str()) {
            let known = MEMBERS.iter().copied();
            faults.push(validate::unknown_field(&key.name, places.of_key(key), &key.name, known));
        }
    }
    let Some((metadata_key, metadata)) = document.entry("metadata") else {
        let place = document.get("kind").map_or_else(|| places.of(document), |kind| places.of(kind));
        faults.push(
            Fault::at(FaultKind::MissingField, place, "metadata.name is missing").help("give it a name"),
        );
        return None;
    };
    known_metadata(metadata, places, faults);
    for name in ["labels", "annotations"] {
        texts(metadata, name, places, faults);
    }
    let name = metadata.entry("name").filter(|(_, name)| name.kind != Kind::Null);
    let Some((_, name)) = name else {
        let mut fault =
            Fault::at(FaultKind::MissingField, places.of_key(metadata_key), "metadata.name is missing");
        fault.help = Some(match metadata.get("generateName") {
            Some(_) => "generateName needs an API server; in a folder write a name".to_owned(),
            None => "give it a name".to_owned(),
        });
        faults.push(fault);
        return None;
    };
    let name = name_text(name, "metadata.name", 253, true, places, faults)?;
    let namespace = metadata.entry("namespace").filter(|(_, namespace)| namespace.kind != Kind::Null);
    if kind != INSTANCE {
        if let Some((key, _)) = namespace {
            let message = format!("metadata.namespace: a {kind} belongs to no namespace");
            faults.push(
                Fault::at(FaultKind::InvalidValue, places.of_key(key), message).help("remove the line"),
            );
        }
        return Some(if kind == BLOCK { Subject::Block(name) } else { Subject::Installation });
    }
    let namespace = match namespace {
        Some((_, node)) => name_text(node, "metadata.namespace", 63, false, places, faults)?,
        None => DEFAULT_NAMESPACE.to_owned(),
    };
    format!("{namespace}/{name}").parse().ok().map(Subject::Instance)
}

fn known_metadata(metadata: &Node, places: &Places, faults: &mut Vec<Fault>) {
    const KNOWN: &[&str] = &[
        "name",
        "namespace",
        "labels",
        "annotations",
        "generateName",
        "finalizers",
        "ownerReferences",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    ];
    for (key, _) in metadata.entries() {
        if !KNOWN.contains(&key.name.as_str()) {
            let path = member("metadata", &key.name);
            let usual = KNOWN.iter().copied().take(4);
            faults.push(validate::unknown_field(&path, places.of_key(key), &key.name, usual));
        }
    }
}

/// A name of Kubernetes: labels of lower-case letters, digits and hyphens, with dots between them where allowed.
fn name_text(
    node: &Node,
    path: &str,
    most: usize,
    dots: bool,
    places: &Places,
    faults: &mut Vec<Fault>,
) -> Option<String> {
    let place = places.of(node);
    let Some(text) = node.text() else {
        let message = format!("{path} must be text, not {}", node.kind.name());
        let fault = Fault::at(FaultKind::WrongType, place.clone(), message);
        faults.push(fault.help(format!("quote it: \"{}\"", place.text())));
        return None;
    };
    if is_name(text, most, dots) {
        return Some(text.to_owned());
    }
    let message = format!("{path}: {text:.80?} is no name");
    let form =
        if dots { "lower-case letters, digits, '-' and '.'" } else { "lower-case letters, digits and '-'" };
    faults.push(
        Fault::at(FaultKind::InvalidValue, place, message)
            .help(format!("use at most {most} {form}, beginning and ending with a letter or digit")),
    );
    None
}

pub(crate) fn is_name(text: &str, most: usize, dots: bool) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= most && if dots { text.split('.').all(label) } else { label(text) }
}

/// Labels and annotations are texts, all of them.
fn texts(metadata: &Node, name: &str, places: &Places, faults: &mut Vec<Fault>) {
    let Some((key, node)) = metadata.entry(name).filter(|(_, node)| node.kind != Kind::Null) else { return };
    let path = member("metadata", name);
    if !matches!(node.kind, Kind::Map(_)) {
        let message = format!("{path} must be a mapping, not {}", node.kind.name());
        faults.push(Fault::at(FaultKind::WrongType, places.of_key(key), message));
    }
    for (key, value) in node.entries() {
        if value.text().is_none() {
            let place = if matches!(value.kind, Kind::Bool(_) | Kind::Number(_)) {
                places.of(value)
            } else {
                places.of_key(key)
            };
            let message = format!("{}: must be text, not {}", member(&path, &key.name), value.kind.name());
            let help = format!("quote it: \"{}\"", place.text());
            faults.push(Fault::at(FaultKind::WrongType, place, message).help(help));
        }
    }
}
