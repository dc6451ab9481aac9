//! Colours, where somebody sees them.

use std::io::{self, IsTerminal};

use clap::builder::styling::{AnsiColor, Style};

/// What is shown how; without colours, everything plain.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Palette {
    pub(crate) added: Style,
    pub(crate) removed: Style,
    pub(crate) changed: Style,
    pub(crate) heading: Style,
}

impl Palette {
    /// For standard output.
    pub(crate) fn of_stdout() -> Self {
        if wanted(&io::stdout()) { Self::colourful() } else { Self::default() }
    }

    fn colourful() -> Self {
        Self {
            added: AnsiColor::Green.on_default(),
            removed: AnsiColor::Red.on_default(),
            changed: AnsiColor::Yellow.on_default(),
            heading: Style::new().bold(),
        }
    }
}

/// A terminal whose owner did not say no (<https://no-color.org>).
pub(crate) fn wanted(to: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    to.is_terminal() && !refused && !dumb
}

/// A text in a style.
pub(crate) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
