//! What is wrong with manifests: a sentence, the place, and what to do.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// The text of a file, and what the file is called.
#[derive(Debug)]
pub struct SourceText {
    name: String,
    text: NamedSource<Arc<str>>,
    lines: Vec<usize>,
}

impl SourceText {
    /// A text under a name that people know it by.
    pub fn new(name: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        let (name, text) = (name.into(), text.into());
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        Self { text: NamedSource::new(&name, text).with_language("yaml"), name, lines }
    }

    /// What the file is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        self.text.inner()
    }

    /// Line and column, both from 1; columns count characters.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|before| self.lines.get(before)).copied().unwrap_or(0);
        let column = self.text().get(start..offset).map_or(1, |before| before.chars().count() + 1);
        (line, column)
    }
}

/// A piece of a file. Offset and length are bytes.
#[derive(Clone)]
pub struct Place {
    /// Which file.
    pub source: Arc<SourceText>,
    /// Where it begins.
    pub offset: usize,
    /// How long it is.
    pub length: usize,
}

impl Place {
    /// Line, from 1.
    pub fn line(&self) -> usize {
        self.source.line_and_column(self.offset).0
    }

    /// Column in characters, from 1.
    pub fn column(&self) -> usize {
        self.source.line_and_column(self.offset).1
    }

    /// What stands there.
    pub fn text(&self) -> &str {
        self.source.text().get(self.offset..self.offset + self.length).unwrap_or_default()
    }
}

/// `file:line:column`, as editors and terminals make links of it.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.source.line_and_column(self.offset);
        write!(formatter, "{}:{line}:{column}", self.source.name())
    }
}

/// Not the text: a file may hold other people's secrets.
impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Place({self})")
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        (self.source.name(), self.offset, self.length, self.source.text())
            == (other.source.name(), other.offset, other.length, other.source.text())
    }
}

impl Eq for Place {}

/// What kind of mistake it is; `code` is what people search for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The file or folder cannot be read.
    Unreadable,
    /// Too large, too many, too deep.
    TooMuch,
    /// Not YAML.
    Syntax,
    /// A key stands in a mapping twice.
    DuplicateKey,
    /// Nobody knows this field.
    UnknownField,
    /// A field that must be there is not.
    MissingField,
    /// A number where text belongs, and so on.
    WrongType,
    /// The type is right, the value is not.
    InvalidValue,
    /// Not the version of the resource that this build knows.
    WrongVersion,
    /// Two documents are about one object.
    SameName,
    /// A field that may not change did.
    Immutable,
}

impl FaultKind {
    /// The kind in words.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooMuch => "too much",
            Self::Syntax => "not YAML",
            Self::DuplicateKey => "duplicate key",
            Self::UnknownField => "unknown field",
            Self::MissingField => "missing field",
            Self::WrongType => "wrong type",
            Self::InvalidValue => "invalid value",
            Self::WrongVersion => "unknown version",
            Self::SameName => "same name twice",
            Self::Immutable => "cannot be changed",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of mistake.
    pub kind: FaultKind,
    /// What is wrong, with the member it is wrong with.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The file, where there is no place in its text.
    pub file: String,
    /// Where.
    pub place: Option<Place>,
    /// A word under the place.
    pub label: Option<String>,
    /// Another place that matters, in the same file or in another one.
    pub other: Option<(Place, String)>,
}

impl Fault {
    /// A fault at a place.
    pub fn at(kind: FaultKind, place: Place, message: impl Into<String>) -> Self {
        let file = place.source.name().to_owned();
        Self { kind, message: message.into(), help: None, file, place: Some(place), label: None, other: None }
    }

    /// A fault of a file as a whole.
    pub fn of_file(kind: FaultKind, file: impl Into<String>, message: impl Into<String>) -> Self {
        let (file, message) = (file.into(), message.into());
        Self { kind, message, help: None, file, place: None, label: None, other: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with a word under the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same with another place.
    #[must_use]
    pub fn other(mut self, place: Place, label: impl Into<String>) -> Self {
        self.other = Some((place, label.into()));
        self
    }

    /// The member that it is about: messages begin with it.
    pub(crate) fn member(&self) -> &str {
        self.message.split([' ', ':']).next().unwrap_or_default()
    }

    /// What sorts faults: file, place, message.
    pub(crate) fn order(&self) -> (&str, usize, &str) {
        (&self.file, self.place.as_ref().map_or(0, |place| place.offset), &self.message)
    }

    fn other_is_in_the_same_file(&self) -> bool {
        match (&self.place, &self.other) {
            (Some(place), Some((other, _))) => Arc::ptr_eq(&place.source, &other.source),
            _ => false,
        }
    }
}

/// One line: `file:line:column: what is wrong`.
impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(formatter, "{place}: {}", self.message)?,
            None => write!(formatter, "{}: {}", self.file, self.message)?,
        }
        match &self.other {
            Some((other, _)) if !self.other_is_in_the_same_file() => {
                write!(formatter, " (the other: {other})")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

impl Diagnostic for Fault {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.kind.code()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|place| &place.source.text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.place.as_ref()?;
        let own = LabeledSpan::new_primary_with_span(self.label.clone(), (place.offset, place.length));
        let other = self.other.as_ref().filter(|_| self.other_is_in_the_same_file()).map(|(other, label)| {
            LabeledSpan::new_with_span(Some(label.clone()), (other.offset, other.length))
        });
        Some(Box::new(std::iter::once(own).chain(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters() {
        let source = Arc::new(SourceText::new("a.yaml", "é: 1\nbü: 2\n"));
        for (offset, shown) in [(0, "a.yaml:1:1"), (2, "a.yaml:1:2"), (6, "a.yaml:2:1"), (11, "a.yaml:2:5")] {
            let place = Place { source: Arc::clone(&source), offset, length: 1 };
            assert_eq!(place.to_string(), shown);
        }
        let beyond = Place { source, offset: 4_000, length: 10 };
        assert_eq!((beyond.text(), beyond.line()), ("", 3));
    }

    #[test]
    fn a_fault_is_one_line_and_names_the_other_file() {
        let one = Arc::new(SourceText::new("one.yaml", "a"));
        let two = Arc::new(SourceText::new("two.yaml", "b"));
        let at = |source: &Arc<SourceText>| Place { source: Arc::clone(source), offset: 0, length: 1 };
        let fault =
            Fault::at(FaultKind::SameName, at(&two), "stands there twice").other(at(&one), "first here");
        assert_eq!(fault.to_string(), "two.yaml:1:1: stands there twice (the other: one.yaml:1:1)");
        assert!(!format!("{fault:?}").contains("NamedSource"));
    }
}
