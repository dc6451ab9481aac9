//! Mistakes as people read them: the place, a caret, what to do.

use std::io::{self, IsTerminal as _};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

/// Widest line of a report.
const WIDTH: usize = 100;

/// A mistake with its place, for standard error.
pub fn told(mistake: &dyn Diagnostic) -> String {
    let theme = if io::stderr().is_terminal() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    drawn(mistake, theme)
}

fn drawn(mistake: &dyn Diagnostic, theme: GraphicalTheme) -> String {
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_context_lines(1);
    match handler.render_report(&mut text, mistake) {
        Ok(()) => text,
        // The one line says it, too.
        Err(_) => format!("{mistake}\n"),
    }
}
