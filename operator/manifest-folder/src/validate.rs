//! What the API server checks by the schema of a resource, checked here by that same schema: a folder accepts what a
//! cluster accepts. The limits stand once, in `resources`; nothing is repeated here.
//!
//! Unlike the API server this finds places in the text. Rules in CEL are not run: what they say, the types of
//! `resources` say too.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use regex_lite::Regex;
use resources::{crds, did_you_mean};
use serde_json::Value;

use crate::document::{Key, Kind, Node, Places};
use crate::fault::{Fault, FaultKind, Place};

/// A schema in a form that is quick to ask.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    kind: Option<ValueKind>,
    properties: BTreeMap<String, Rule>,
    /// Members that the schema does not name may be there.
    open: bool,
    required: Vec<String>,
    items: Option<Box<Rule>>,
    values: Option<Box<Rule>>,
    least_items: Option<usize>,
    most_items: Option<usize>,
    least_length: Option<usize>,
    most_length: Option<usize>,
    least: Option<f64>,
    most: Option<f64>,
    pattern: Option<Regex>,
    choice: Vec<String>,
    set: bool,
    /// Members that tell the entries of a list apart.
    keys: Vec<String>,
    nullable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// Words of a schema that are for other readers, and those in CEL (see the module).
const PASSED_OVER: &[&str] = &["description", "default", "format", "anyOf", "x-kubernetes-validations"];

impl Rule {
    fn read(schema: &Value) -> Result<Self, String> {
        let mut rule = Self::default();
        for (word, value) in schema.as_object().ok_or("a schema is an object")? {
            let size = || value.as_u64().and_then(|size| usize::try_from(size).ok());
            let texts =
                || value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
            match word.as_str() {
                "type" => rule.kind = Some(ValueKind::read(value)?),
                "properties" => {
                    for (name, inside) in value.as_object().into_iter().flatten() {
                        rule.properties.insert(name.clone(), Self::read(inside)?);
                    }
                }
                "required" => rule.required = texts().collect(),
                "enum" => rule.choice = texts().collect(),
                "items" => rule.items = Some(Box::new(Self::read(value)?)),
                "additionalProperties" if value.is_object() => {
                    rule.values = Some(Box::new(Self::read(value)?));
                }
                "additionalProperties" => rule.open = value == &Value::Bool(true),
                "minItems" => rule.least_items = size(),
                "maxItems" => rule.most_items = size(),
                "minLength" => rule.least_length = size(),
                "maxLength" => rule.most_length = size(),
                "minimum" => rule.least = value.as_f64(),
                "maximum" => rule.most = value.as_f64(),
                "pattern" => {
                    let text = value.as_str().unwrap_or_default();
                    rule.pattern = Some(Regex::new(text).map_err(|error| format!("{text}: {error}"))?);
                }
                "x-kubernetes-list-type" => rule.set = value == "set",
                "x-kubernetes-list-map-keys" => rule.keys = texts().collect(),
                "nullable" => rule.nullable = value == &Value::Bool(true),
                other if PASSED_OVER.contains(&other) => {}
                other => return Err(format!("the schema says {other:?}, which nobody checks here")),
            }
        }
        Ok(rule)
    }
}

impl ValueKind {
    fn read(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("object") => Ok(Self::Object),
            Some("array") => Ok(Self::Array),
            Some("string") => Ok(Self::String),
            Some("integer") => Ok(Self::Integer),
            Some("number") => Ok(Self::Number),
            Some("boolean") => Ok(Self::Boolean),
            _ => Err(format!("unknown type {value}")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Object => "a mapping",
            Self::Array => "a list",
            Self::String => "text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
        }
    }

    fn fits(self, value: &Kind) -> bool {
        match (self, value) {
            (Self::Object, Kind::Map(_))
            | (Self::Array, Kind::List(_))
            | (Self::String, Kind::Text(_))
            | (Self::Number, Kind::Number(_))
            | (Self::Boolean, Kind::Bool(_)) => true,
            // 3.0 is an integer for an API server, but not for those who read it afterwards.
            (Self::Integer, Kind::Number(number)) => number.is_i64() || number.is_u64(),
            _ => false,
        }
    }
}

/// The rules of `spec`, by kind.
static RULES: LazyLock<Result<HashMap<String, Rule>, String>> = LazyLock::new(read_rules);

fn read_rules() -> Result<HashMap<String, Rule>, String> {
    let mut rules = HashMap::new();
    for definition in crds::definitions() {
        for version in &definition.spec.versions {
            let schema = serde_json::to_value(&version.schema).map_err(|error| error.to_string())?;
            let spec = schema.pointer("/openAPIV3Schema/properties/spec").ok_or("a schema without spec")?;
            rules.insert(definition.spec.names.kind.clone(), Rule::read(spec)?);
        }
    }
    Ok(rules)
}

/// The rules of a kind's `spec`. `Err` cannot happen in a build whose tests pass.
pub(crate) fn rules_of(kind: &str) -> Result<&'static Rule, String> {
    let rules = RULES.as_ref().map_err(Clone::clone)?;
    rules.get(kind).ok_or_else(|| format!("nobody knows the rules of {kind}"))
}

/// A rule that is broken.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) fault: Fault,
    /// Only a pattern did not match: the type, where it finds something too, says better what is wrong.
    pub(crate) vague: bool,
}

/// What breaks the rules, all of it.
pub(crate) fn check(node: &Node, rule: &Rule, path: &str, places: &Places) -> Vec<Broken> {
    let mut checker = Checker { places, faults: Vec::new() };
    checker.value(node, rule, path, &places.of(node));
    checker.faults
}

struct Checker<'a> {
    places: &'a Places,
    faults: Vec<Broken>,
}

impl Checker<'_> {
    fn tell(&mut self, kind: FaultKind, place: &Place, message: String) {
        self.push(Fault::at(kind, place.clone(), message));
    }

    fn push(&mut self, fault: Fault) {
        self.faults.push(Broken { fault, vague: false });
    }

    /// `place` is where to point at: a list or mapping has none of its own.
    fn value(&mut self, node: &Node, rule: &Rule, path: &str, place: &Place) {
        if let Some(kind) = rule.kind
            && !kind.fits(&node.kind)
        {
            if !(rule.nullable && node.kind == Kind::Null) {
                self.push(wrong_type(node, kind, path, place));
            }
            return;
        }
        match &node.kind {
            Kind::Map(entries) => self.mapping(entries, rule, path, place),
            Kind::List(items) => self.list(items, rule, path, place),
            Kind::Text(text) => self.text(text, rule, path, place),
            Kind::Number(number) => self.number(number.as_f64().unwrap_or_default(), rule, path, place),
            Kind::Bool(_) | Kind::Null => {}
        }
    }

    fn mapping(&mut self, entries: &[(Key, Node)], rule: &Rule, path: &str, place: &Place) {
        for (key, value) in entries {
            let path = member(path, &key.name);
            if let Some(inside) = rule.properties.get(&key.name).or(rule.values.as_deref()) {
                let has_own_place = !matches!(value.kind, Kind::Map(_) | Kind::List(_) | Kind::Null);
                let at = if has_own_place { self.places.of(value) } else { self.places.of_key(key) };
                self.value(value, inside, &path, &at);
            } else if !rule.open {
                self.push(unknown_field(
                    &path,
                    self.places.of_key(key),
                    &key.name,
                    rule.properties.keys().map(String::as_str),
                ));
            }
        }
        for missing in &rule.required {
            if !entries.iter().any(|(key, _)| key.name == *missing) {
                self.tell(FaultKind::MissingField, place, format!("{} is missing", member(path, missing)));
            }
        }
    }

    fn list(&mut self, items: &[Node], rule: &Rule, path: &str, place: &Place) {
        let entries = |count: usize| if count == 1 { "entry" } else { "entries" };
        if let Some(least) = rule.least_items.filter(|least| items.len() < *least) {
            let message = format!("{path} must have at least {least} {}", entries(least));
            self.tell(FaultKind::InvalidValue, place, message);
        }
        if let Some(most) = rule.most_items.filter(|most| items.len() > *most) {
            let message = format!("{path} has {} entries; at most {most} are allowed", items.len());
            self.tell(FaultKind::InvalidValue, place, message);
            return;
        }
        let mut seen: HashMap<Vec<&str>, &Node> = HashMap::new();
        for (at, item) in items.iter().enumerate() {
            let path = format!("{path}[{at}]");
            if let Some(inside) = rule.items.as_deref() {
                self.value(item, inside, &path, &self.places.of(item));
            }
            let (marks, of_text) = if rule.set {
                (item.text().into_iter().collect(), "stands")
            } else {
                (rule.keys.iter().filter_map(|key| item.get(key)?.text()).collect::<Vec<_>>(), "is named")
            };
            let Some(shown) = marks.last().copied() else { continue };
            if let Some(first) = seen.insert(marks, item) {
                let message = format!("{path}: {shown:.80?} {of_text} in this list twice");
                let fault = Fault::at(FaultKind::InvalidValue, self.places.of(item), message);
                self.push(fault.other(self.places.of(first), "first here").help("remove one of them"));
            }
        }
    }

    fn text(&mut self, text: &str, rule: &Rule, path: &str, place: &Place) {
        let length = text.chars().count();
        let mut wrong = None;
        if rule.least_length.is_some_and(|least| length < least) {
            wrong = Some(format!("{path} is empty"));
        } else if let Some(most) = rule.most_length.filter(|most| length > *most) {
            wrong = Some(format!("{path} has {length} characters; at most {most} are allowed"));
        } else if !rule.choice.is_empty() && !rule.choice.iter().any(|choice| choice == text) {
            let mut fault = Fault::at(
                FaultKind::InvalidValue,
                place.clone(),
                format!("{path} is {text:.80?}; it can be {}", rule.choice.join(" or ")),
            );
            fault.help = did_you_mean(text, rule.choice.iter().map(String::as_str));
            self.push(fault);
        } else if let Some(pattern) = rule.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            let message = format!("{path}: {text:.80?} does not have the form {}", pattern.as_str());
            let fault = Fault::at(FaultKind::InvalidValue, place.clone(), message);
            self.faults.push(Broken { fault, vague: true });
        }
        if let Some(message) = wrong {
            self.tell(FaultKind::InvalidValue, place, message);
        }
    }

    fn number(&mut self, number: f64, rule: &Rule, path: &str, place: &Place) {
        let below = rule.least.filter(|least| number < *least);
        let above = rule.most.filter(|most| number > *most);
        if let Some(limit) = below {
            self.tell(
                FaultKind::InvalidValue,
                place,
                format!("{path} is {number}; it must be at least {limit}"),
            );
        } else if let Some(limit) = above {
            self.tell(
                FaultKind::InvalidValue,
                place,
                format!("{path} is {number}; it must be at most {limit}"),
            );
        }
    }
}

/// A member nobody knows.
pub(crate) fn unknown_field<'a>(
    path: &str,
    place: Place,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Fault {
    let mut fault = Fault::at(FaultKind::UnknownField, place, format!("{path}: nobody knows this field"));
    fault.help = did_you_mean(name, known.clone()).or_else(|| {
        let known: Vec<&str> = known.collect();
        (!known.is_empty() && known.len() <= 16).then(|| format!("known are {}", known.join(", ")))
    });
    fault
}

fn wrong_type(node: &Node, expected: ValueKind, path: &str, place: &Place) -> Fault {
    let written = place.text();
    let message = format!("{path} must be {}, not {}", expected.name(), node.kind.name());
    let fault = Fault::at(FaultKind::WrongType, place.clone(), message);
    match (&node.kind, expected) {
        (Kind::Null, _) => fault.help("give it a value, or leave the line out"),
        (Kind::Number(_) | Kind::Bool(_), ValueKind::String) => {
            fault.help(format!("quote it: \"{written}\"")).label("not quoted")
        }
        (Kind::Text(text), ValueKind::Boolean | ValueKind::Integer | ValueKind::Number)
            if text.parse::<f64>().is_ok() || ["true", "false"].contains(&text.as_str()) =>
        {
            fault.help(format!("remove the quotes: {text}"))
        }
        (Kind::Text(_) | Kind::Number(_), ValueKind::Array) => {
            fault.help(format!("write a list: [{written}]"))
        }
        _ => fault,
    }
}

/// `spec` and `enabled` make `spec.enabled`.
pub(crate) fn member(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
