//! Where `up` writes: a table that is drawn over, or a line for each change. What goes to standard error in between
//! (complaints, log lines) never lands in the middle of a table.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use board::Board;
use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::board_text::{line, table};

/// How `up` shows what it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A table that stays current
    Table,
    /// One line for each change
    Plain,
    /// One JSON object for each change
    Json,
}

impl Form {
    /// A table for people, lines for everybody else.
    pub fn of_terminal() -> Self {
        if io::stdout().is_terminal() { Self::Table } else { Self::Plain }
    }
}

/// Where `up` writes. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Screen(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    form: Form,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The table as it stands on the terminal.
    frame: String,
    /// What was told last of each instance.
    told: BTreeMap<String, String>,
}

impl Screen {
    /// Writes in that form.
    pub fn new(form: Form) -> Self {
        Self(Arc::new(Shared { form, state: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first thing that is told: where it listens. An error means that nobody reads any more.
    pub fn listening(&self, board: &Board, state: &str) -> io::Result<()> {
        let Board { folder, listen, domain, .. } = board;
        let listen = listen.join(",");
        let line = match self.0.form {
            Form::Table => format!("Serving {folder} on {listen} for *.{domain}; state in {state}. Ctrl-C ends it."),
            Form::Plain => format!("listening={listen} domain={domain} state={state}"),
            Form::Json => serde_json::json!({
                "event": "listening", "listen": board.listen, "domain": domain, "folder": folder, "state": state,
            })
            .to_string(),
        };
        writeln!(io::stdout(), "{line}")
    }

    /// Shows the board: all of it, or what changed.
    pub fn show(&self, board: &Board) -> io::Result<()> {
        let mut state = self.lock();
        let mut out = io::stdout().lock();
        if self.0.form == Form::Table {
            let (width, height) = terminal_size::terminal_size()
                .map_or((0, usize::MAX), |(width, height)| (usize::from(width.0), usize::from(height.0)));
            let frame = fit(&table(board, width), height);
            if frame != state.frame {
                out.write_all(format!("{}{frame}", erase(&state.frame)).as_bytes())?;
                state.frame = frame;
            }
            return out.flush();
        }
        for line in changes(self.0.form, &mut state.told, board) {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }

    /// Writes to standard error; a table moves down for it.
    pub fn aside(&self, text: &str) {
        let state = self.lock();
        if state.frame.is_empty() {
            let _ = io::stderr().write_all(text.as_bytes());
            return;
        }
        let mut out = io::stdout().lock();
        let _ = out.write_all(erase(&state.frame).as_bytes()).and_then(|()| out.flush());
        let _ = io::stderr().write_all(text.as_bytes());
        let _ = out.write_all(state.frame.as_bytes()).and_then(|()| out.flush());
    }
}

/// What to tell, and remembers that it was told.
fn changes(form: Form, told: &mut BTreeMap<String, String>, board: &Board) -> Vec<String> {
    let json = form == Form::Json;
    let mut lines = Vec::new();
    let gone: Vec<String> = told
        .keys()
        .filter(|known| !board.instances.iter().any(|row| row.instance == **known))
        .cloned()
        .collect();
    for instance in gone {
        told.remove(&instance);
        lines.push(if json {
            serde_json::json!({"event": "removed", "instance": instance}).to_string()
        } else {
            format!("instance={instance} removed")
        });
    }
    for row in &board.instances {
        let line = if json {
            match serde_json::to_value(row) {
                Ok(serde_json::Value::Object(mut members)) => {
                    members.insert("event".to_owned(), "instance".into());
                    serde_json::Value::Object(members).to_string()
                }
                _ => continue,
            }
        } else {
            line(row)
        };
        if told.get(&row.instance) != Some(&line) {
            lines.push(line.clone());
            told.insert(row.instance.clone(), line);
        }
    }
    lines
}

/// Takes back what was drawn: up to its first line, and everything below is wiped.
fn erase(frame: &str) -> String {
    match frame.lines().count() {
        0 => String::new(),
        lines => format!("\x1b[{lines}A\x1b[J"),
    }
}

/// A table that is higher than the terminal could not be taken back.
fn fit(frame: &str, height: usize) -> String {
    let lines = frame.lines().count();
    let room = height.saturating_sub(2).max(1);
    if lines <= room {
        return frame.to_owned();
    }
    let shown: String = frame.lines().take(room - 1).flat_map(|line| [line, "\n"]).collect();
    format!("{shown}… {} more lines: see `latchkey status`\n", lines - (room - 1))
}

/// Log lines go where complaints go.
pub fn start_log(filter: &str, screen: &Screen) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log {filter}: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(screen.clone());
    // A second call, in a test, changes nothing.
    let _ = lines.try_init();
    Ok(())
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Aside;

    fn make_writer(&'a self) -> Aside {
        Aside(self.clone())
    }
}

/// Log lines, each written at once.
#[derive(Debug)]
pub struct Aside(Screen);

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.aside(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use board::Row;

    fn board(names: &[&str], revision: u64) -> Board {
        let rows = names.iter().map(|name| Row { instance: (*name).to_owned(), ..Row::default() });
        Board { instances: rows.collect(), revision, ..Board::default() }
    }

    #[test]
    fn only_changes_are_told() {
        let mut told = BTreeMap::new();
        assert_eq!(changes(Form::Plain, &mut told, &board(&["a/a", "a/b"], 1)).len(), 2);
        assert_eq!(changes(Form::Plain, &mut told, &board(&["a/a", "a/b"], 2)), Vec::<String>::new());
        assert_eq!(changes(Form::Plain, &mut told, &board(&["a/b"], 3)), ["instance=a/a removed"]);
        assert_eq!(changes(Form::Plain, &mut told, &board(&["a/a", "a/b"], 4)).len(), 1);
        let json = changes(Form::Json, &mut BTreeMap::new(), &board(&["a/a"], 1));
        let value: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
        assert_eq!((&value["event"], &value["instance"]), (&"instance".into(), &"a/a".into()));
    }

    #[test]
    fn a_table_never_grows_beyond_the_terminal() {
        let frame = "one\ntwo\nthree\nfour\n";
        assert_eq!(fit(frame, 6), frame);
        assert_eq!(fit(frame, 5), "one\ntwo\n… 2 more lines: see `latchkey status`\n");
        assert_eq!(erase(frame), "\x1b[4A\x1b[J");
        assert_eq!(erase(""), "");
    }
}
