//! Every command tells how it is used, and what it tells is true.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests may")]

use std::collections::BTreeSet;
use std::process::Command;

use clap::{CommandFactory, Parser};
use latchkey::app::Cli;

/// Every command, with the words that lead to it.
fn commands() -> Vec<(Vec<String>, clap::Command)> {
    fn gather(path: &[String], command: &clap::Command, all: &mut Vec<(Vec<String>, clap::Command)>) {
        for below in command.get_subcommands().filter(|each| each.get_name() != "help") {
            let path = [path, &[below.get_name().to_owned()]].concat();
            gather(&path, below, all);
            all.push((path, below.clone()));
        }
    }
    let mut program = Cli::command();
    program.build();
    let mut all = Vec::new();
    gather(&[], &program, &mut all);
    all.push((Vec::new(), program));
    assert!(all.len() >= 5, "{all:?}");
    all
}

/// The command lines of a help text: what a shell would hand to `latchkey`, word by word.
fn command_lines(help: &str) -> Vec<Vec<String>> {
    let whole = help.replace("\\\n", " ");
    whole
        .lines()
        .filter(|line| line.starts_with("    ") && line.contains("latchkey "))
        .filter_map(|line| {
            let words: Vec<_> = words(line)
                .into_iter()
                .skip_while(|word| word != "latchkey")
                .take_while(|word| !word.starts_with(['|', '>', '<', '&', ';', '#']))
                .collect();
            (!words.is_empty()).then_some(words)
        })
        .collect()
}

/// As a shell splits a line, as far as our examples go: blanks, and single or double quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for each in line.chars() {
        match (quote, each) {
            (Some(open), _) if open == each => quote = None,
            (None, '\'' | '"') => {
                quote = Some(each);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(each),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_has_examples_that_parse_and_show_it() {
    for (path, command) in commands() {
        let name = path.join(" ");
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Examples:\n"), "`latchkey {name} --help` has no examples");
        let lines = command_lines(&help);
        for line in &lines {
            if let Err(error) = Cli::try_parse_from(line) {
                panic!("an example of `latchkey {name}` is wrong: {}\n{error}", line.join(" "));
            }
        }
        let shown = lines.iter().any(|line| line[1..].starts_with(&path));
        assert!(shown, "the examples of `latchkey {name}` show other commands");
    }
}

#[test]
fn every_option_is_explained() {
    for (path, command) in commands() {
        assert!(command.get_about().is_some(), "{path:?}");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path:?}: {}", argument.get_id());
        }
    }
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let ended = Command::new(env!("CARGO_BIN_EXE_latchkey")).arg("manual").arg(&pages).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let written: BTreeSet<_> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let page_of = |path: &[String]| [&["latchkey".to_owned()], path].concat().join("-") + ".1";
    let expected: BTreeSet<_> = commands().iter().map(|(path, _)| page_of(path)).collect();
    assert_eq!(written, expected);
    let page = std::fs::read_to_string(pages.join("latchkey-version-compare.1")).unwrap();
    assert!(page.contains(".SH NAME") && page.contains("Examples:"), "{page}");
}

#[test]
fn completions_know_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let ended =
            Command::new(env!("CARGO_BIN_EXE_latchkey")).args(["completions", shell]).output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let script = String::from_utf8(ended.stdout).unwrap();
        for word in ["fingerprint", "compare", "expect"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn a_wrong_command_line_exits_1_and_help_exits_0() {
    let code = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_latchkey")).args(arguments).output().unwrap().status.code()
    };
    assert_eq!(code(&["fingerprint"]), Some(1));
    assert_eq!(code(&["no-such-command"]), Some(1));
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["--version"]), Some(0));
}
