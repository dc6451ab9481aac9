//! docs/limits.md has a row for every limit of proxy and agent, with the default that `--help` shows.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a failed expectation is the message")]

use clap::{Arg, Command, CommandFactory};

const PAGE: &str = include_str!("../../docs/limits.md");
/// Where the agent's part begins; what is before it is the proxy's.
const AGENT: &str = "## The agent";

fn shown(arg: &Arg) -> String {
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
    let bytes = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "BYTES"));
    match defaults.as_slice() {
        [] => "none".to_owned(),
        [one] if bytes => match one.parse::<u64>().unwrap() {
            size if size % (1 << 20) == 0 => format!("{} MiB", size >> 20),
            size => format!("{} KiB", size >> 10),
        },
        several => several.join(",").replace(',', ", "),
    }
}

/// Every limit of a command has its row on that part of the page.
fn has_rows(command: &Command, page: &str, at_least: usize) {
    let limits: Vec<_> = command
        .get_arguments()
        .filter(|arg| {
            arg.get_help_heading().is_some_and(|heading| heading.starts_with("Limits"))
                || arg.get_id() == "grace"
        })
        .collect();
    assert!(limits.len() >= at_least, "the limits are not found any more");
    for arg in limits {
        let row = format!("| `--{}` | {} |", arg.get_long().unwrap(), shown(arg));
        assert!(page.contains(&row), "not in docs/limits.md: {row}");
    }
}

#[test]
fn every_limit_stands_there_with_its_default() {
    let (proxy, agent) = PAGE.split_once(AGENT).unwrap();
    has_rows(&latchkey_proxy::settings::Settings::command(), proxy, 20);
    has_rows(&latchkey_agent::settings::Settings::command(), agent, 6);
}
