//! What a command says: results on standard output, complaints on standard error.

use std::io::{self, Write};
use std::process::ExitCode;

/// Prints a result. A reader that has heard enough (`| head`) is no error.
pub fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&format!("standard output: {error}")),
        _ => ExitCode::SUCCESS,
    }
}

/// Says what went wrong.
pub fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "latchkey: {what}");
}

/// Says what went wrong; the exit code that goes with it.
pub fn fail(what: &str) -> ExitCode {
    complain(what);
    ExitCode::FAILURE
}

/// A text from outside, made fit for a terminal.
pub fn harmless(text: &str) -> String {
    text.chars().map(|each| if each.is_control() { char::REPLACEMENT_CHARACTER } else { each }).collect()
}
