//! Mistakes in manifests, shown with the lines they stand in.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use manifest_folder::Fault;
use miette::{GraphicalReportHandler, GraphicalTheme};

use super::color;

/// Wide enough for a line of YAML, narrow enough for a log.
const WIDTH: usize = 110;
/// A folder may have a mistake in every document; nobody reads on after so many.
const MOST: usize = 50;

/// Writes them to standard error.
pub fn show_faults(faults: &[Fault]) {
    let colourful = color::wanted(&io::stderr());
    let _ = io::stderr().write_all(render(faults, colourful).as_bytes());
}

/// All of them, each with its place.
pub(crate) fn render(faults: &[Fault], colourful: bool) -> String {
    let mut text = String::new();
    for fault in faults.iter().take(MOST) {
        text.push_str(&render_one(fault, colourful));
        text.push('\n');
    }
    if faults.len() > MOST {
        let _ = writeln!(text, "and {} more", faults.len() - MOST);
    }
    let files = faults.iter().map(|fault| &fault.file).collect::<BTreeSet<_>>().len();
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    let _ = writeln!(text, "{} in {}", count(faults.len(), "mistake"), count(files, "file"));
    text
}

/// One of them, with its place.
pub(crate) fn render_one(fault: &Fault, colourful: bool) -> String {
    let theme = if colourful { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false);
    let mut text = String::new();
    match handler.render_report(&mut text, &Shown(fault)) {
        Ok(()) => text,
        Err(_) => fault.to_string(),
    }
}

/// The message alone: the place stands in the frame below it.
#[derive(Debug)]
struct Shown<'a>(&'a Fault);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.place {
            Some(_) => formatter.write_str(&self.0.message)?,
            None => write!(formatter, "{}: {}", self.0.file, self.0.message)?,
        }
        match (&self.0.other, &self.0.place) {
            (Some((other, _)), Some(place)) if other.source.name() != place.source.name() => {
                write!(formatter, " (the other stands at {other})")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        miette::Diagnostic::code(self.0)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        miette::Diagnostic::help(self.0)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        miette::Diagnostic::source_code(self.0)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        miette::Diagnostic::labels(self.0)
    }
}
