//! A YAML or JSON document as a tree that knows where each value stands.
//!
//! Types alone would stop at the first mistake and forget where a value came from. The tree is read once; checks,
//! types and messages all work on it.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_yaml::{Location, Spanned};

use crate::fault::{Fault, FaultKind, Place, SourceText};

/// Deepest nesting of a document.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most documents of a file.
pub(crate) const MAX_DOCUMENTS_PER_FILE: usize = 10_000;
/// Most values of a document, aliases expanded.
pub(crate) const MAX_NODES_PER_DOCUMENT: usize = 1_000_000;

/// Most values that aliases may repeat in a file.
const MAX_REPEATED_NODES: usize = 50_000;

/// A value and where it stands, in characters of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    span: CharSpan,
}

/// A key and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: String,
    span: CharSpan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CharSpan {
    offset: u64,
    length: u64,
}

impl From<Location> for CharSpan {
    fn from(location: Location) -> Self {
        Self { offset: location.span().offset(), length: location.span().len() }
    }
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Kind {
    /// What it is called in messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// The member of a mapping.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, value)| value)
    }

    /// The member of a mapping with its key.
    pub(crate) fn entry(&self, name: &str) -> Option<(&Key, &Node)> {
        self.entries().iter().find(|(key, _)| key.name == name).map(|(key, value)| (key, value))
    }

    /// The members of a mapping; of anything else, none.
    pub(crate) fn entries(&self) -> &[(Key, Node)] {
        if let Kind::Map(entries) = &self.kind { entries } else { &[] }
    }

    /// The entries of a list; of anything else, none.
    pub(crate) fn items(&self) -> &[Node] {
        if let Kind::List(items) = &self.kind { items } else { &[] }
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Kind::Text(text) = &self.kind { Some(text) } else { None }
    }

    /// The value as the API server would see it.
    pub(crate) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(is) => Value::Bool(*is),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => {
                let members = entries.iter().map(|(key, value)| (key.name.clone(), value.to_json()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { kind: spanned.value, span: spanned.referenced.into() })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { name: spanned.value, span: spanned.referenced.into() })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Number::from_f64(value).map_or_else(|| Kind::Text(value.to_string()), Kind::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Kind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Kind::Map(entries))
    }
}

/// The documents of one file.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    pub(crate) documents: Vec<Node>,
    /// Mistakes after which a document, or the rest of the file, is not known.
    pub(crate) faults: Vec<Fault>,
}

/// Turns places of a [`Node`] into places of the file.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    source: Arc<SourceText>,
    /// Byte offset of each [`STEP`]th character; empty where a character is a byte.
    steps: Arc<[usize]>,
}

/// Characters between two remembered offsets.
const STEP: usize = 256;

impl Places {
    pub(crate) fn new(source: Arc<SourceText>) -> Self {
        let text = source.text();
        let steps = if text.is_ascii() {
            Arc::default()
        } else {
            text.char_indices().step_by(STEP).map(|(at, _)| at).collect()
        };
        Self { source, steps }
    }

    pub(crate) fn source(&self) -> &Arc<SourceText> {
        &self.source
    }

    /// Where a value stands. Of a list or mapping in block style, its first entry.
    pub(crate) fn of(&self, node: &Node) -> Place {
        self.place(node.span)
    }

    /// Where a key stands.
    pub(crate) fn of_key(&self, key: &Key) -> Place {
        self.place(key.span)
    }

    fn place(&self, span: CharSpan) -> Place {
        let offset = self.byte(span.offset);
        let end = self.byte(span.offset.saturating_add(span.length));
        // A block scalar's span ends behind its last line break.
        let length = self.source.text().get(offset..end).map_or(0, |text| text.trim_end().len());
        Place { source: Arc::clone(&self.source), offset, length }
    }

    fn byte(&self, characters: u64) -> usize {
        let text = self.source.text();
        let characters = usize::try_from(characters).unwrap_or(usize::MAX);
        if self.steps.is_empty() {
            return characters.min(text.len());
        }
        let Some(start) = self.steps.get(characters / STEP) else { return text.len() };
        let behind = text.get(*start..).and_then(|rest| rest.char_indices().nth(characters % STEP));
        behind.map_or(text.len(), |(more, _)| start + more)
    }
}

/// Bounds of one document.
fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES_PER_DOCUMENT,
            max_events: 2 * MAX_NODES_PER_DOCUMENT,
            flow_nesting_limit: MAX_DEPTH,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: MAX_REPEATED_NODES },
        with_snippet: false,
    }
}

/// Reads every document of a file. After a document with a duplicate key the next one is read; after a mistake that
/// leaves no structure the rest of the file is not.
pub(crate) fn read(places: &Places) -> Documents {
    let mut found = Documents::default();
    let mut bytes = places.source.text().as_bytes();
    for document in serde_yaml::read_with_options::<_, Node>(&mut bytes, options()) {
        if found.documents.len() + found.faults.len() >= MAX_DOCUMENTS_PER_FILE {
            let message = format!("has more than {MAX_DOCUMENTS_PER_FILE} documents; split it");
            found.faults.push(Fault::of_file(FaultKind::TooMuch, places.source.name(), message));
            break;
        }
        match document {
            Ok(document) => found.documents.push(document),
            Err(error) => found.faults.push(fault(&error, places)),
        }
    }
    found
}

fn fault(error: &serde_yaml::Error, places: &Places) -> Fault {
    let error = error.without_snippet();
    let place = error.location().map(|at| places.place(CharSpan::from(at)));
    let told = error.to_string();
    // The place is told beside it, and nobody here can set an option of the parser.
    let told = told.lines().next().unwrap_or_default();
    let told = told.rsplit_once(" at line ").map_or(told, |(what, _)| what);
    let (kind, message, help) = if let Some(key) = told.strip_prefix("duplicate mapping key: ") {
        let key = key.split_once(", set ").map_or(key, |(key, _)| key);
        let help = "keep one of them; which one was meant, nobody can tell".to_owned();
        (FaultKind::DuplicateKey, format!("`{key}` stands there twice"), Some(help))
    } else {
        let help = place.as_ref().and_then(hint);
        (FaultKind::Syntax, format!("this is not YAML: {told}"), help)
    };
    let mut fault = match place {
        Some(place) => Fault::at(kind, place, message),
        None => Fault::of_file(kind, places.source.name(), message),
    };
    fault.help = help;
    fault
}

/// What usually is meant by what cannot be read.
fn hint(place: &Place) -> Option<String> {
    let line = place.source.text().lines().nth(place.line().checked_sub(1)?)?;
    if line.contains("{{") {
        Some("a template is no manifest: render it first, or quote the braces".to_owned())
    } else if line.trim_start_matches(' ').starts_with('\t') {
        Some("indent with spaces; YAML allows no tabs there".to_owned())
    } else if line.matches(": ").count() > 1 {
        Some("put a value that contains \": \" in quotes".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> (Places, Documents) {
        let places = Places::new(Arc::new(SourceText::new("a.yaml", text)));
        let found = read(&places);
        (places, found)
    }

    #[test]
    fn values_know_where_they_stand() {
        for (text, place, shown) in [
            ("a: 1\nb: [x, yes]\n", "a.yaml:2:8", "yes"),
            ("a: é\r\nb: [\"ü x\", 2023.10]\r\n", "a.yaml:2:12", "2023.10"),
            ("{\n\t\"a\": 1,\n\t\"b\": [\"\\ud83d\\ude00\", true]\n}", "a.yaml:3:24", "true"),
            ("base: &base {z: [1, 2]}\nb: [0, *base]\n", "a.yaml:2:8", "*base"),
        ] {
            let (places, found) = documents(text);
            assert_eq!(found.faults, [], "{text}");
            let list = found.documents[0].get("b").unwrap();
            let at = places.of(&list.items()[1]);
            assert_eq!((at.to_string().as_str(), at.text()), (place, shown), "{text}");
        }
    }

    #[test]
    fn long_files_in_any_script_are_placed() {
        let mut text = "# ünïcödé\n".repeat(200);
        text.push_str("key: välue # x\n");
        let (places, found) = documents(&text);
        let (key, value) = found.documents[0].entry("key").unwrap();
        assert_eq!((places.of_key(key).text(), places.of_key(key).line()), ("key", 201));
        assert_eq!((places.of(value).text(), places.of(value).column()), ("välue", 6));
    }

    #[test]
    fn after_a_duplicate_key_the_next_document_is_read() {
        let (_, found) = documents("a: 1\na: 2\n---\nb: 1\n---\n# nothing\n---\nc: 1\n");
        assert_eq!(found.documents.len(), 2);
        assert_eq!(found.faults.len(), 1);
        assert_eq!(found.faults[0].to_string(), "a.yaml:2:1: `a` stands there twice");
        assert_eq!(found.faults[0].kind, FaultKind::DuplicateKey);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_place() {
        for (text, place, help) in [
            ("a: 1\nb: [\n", "a.yaml:2:4", None),
            ("a:\n\tb: 1\n", "a.yaml:2:2", Some("spaces")),
            ("a: b: c\n", "a.yaml:1:5", Some("quotes")),
            ("a: {{ .Values.x }}\n", "a.yaml:1:5", Some("render it")),
        ] {
            let (_, found) = documents(text);
            let [fault] = &found.faults[..] else { panic!("{text}: {found:?}") };
            assert_eq!(fault.place.as_ref().unwrap().to_string(), place);
            assert_eq!(fault.kind, FaultKind::Syntax);
            let told = fault.help.as_deref().unwrap_or_default();
            assert!(help.map_or(told.is_empty(), |word| told.contains(word)), "{told}");
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let item = format!("*a{}", level - 1);
            let line = format!("a{level}: &a{level} [{}]\n", vec![item; 10].join(", "));
            aliases.push_str(&line);
        }
        for text in [aliases, "[".repeat(100_000), "a: ".repeat(100_000), "- ".repeat(100_000)] {
            let (_, found) = crate::files::on_a_large_stack(|| Ok(documents(&text))).unwrap();
            assert_eq!((found.documents.len(), found.faults.len()), (0, 1), "{}", &text[..50]);
        }
        let (_, many) = documents(&"---\na: 1\n".repeat(MAX_DOCUMENTS_PER_FILE + 5));
        assert_eq!((many.documents.len(), many.faults.len()), (MAX_DOCUMENTS_PER_FILE, 1));
    }
}
