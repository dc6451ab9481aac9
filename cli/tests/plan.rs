//! `latchkey plan` as a pipeline runs it.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use manifest_folder::{Cache, Defaults, Reading, Shell, StateFolder};
use planner::{Facts, Timestamp};

fn latchkey(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    // Where the fixtures are: paths in messages are those of the command line.
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    command.current_dir(fixtures).arg("plan").args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    shown(latchkey(args).output().unwrap())
}

fn shown(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// `UPDATE_EXPECTED=1` writes what is printed now; look at the difference before it is committed.
#[track_caller]
fn expect(file: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan").join(file);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{file} differs; printed now:\n{found}");
}

#[test]
fn a_change_tells_who_loses_access_and_why() {
    let (code, table, complaints) = run(&["-f", "plan/after", "--against", "plan/before"]);
    assert_eq!((code, complaints.as_str()), (2, ""));
    assert!(!table.contains('\u{1b}'), "no colours where nobody sees them");
    expect("change.txt", &table);
    let (code, yaml, _) = run(&["-f", "plan/after", "--against", "plan/before", "-o", "yaml"]);
    assert_eq!(code, 2);
    expect("change.yaml", &yaml);
    let (code, json, _) = run(&["-f", "plan/after", "--against", "plan/before", "-o", "json"]);
    assert_eq!(code, 2);
    let from_json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let from_yaml: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
    assert_eq!(from_json, from_yaml);
}

#[test]
fn nothing_changed_is_zero_and_everything_is_new_without_a_base() {
    let (code, table, _) = run(&["-f", "plan/after", "--against", "plan/after"]);
    assert_eq!((code, table.as_str()), (0, "No changes.\n"));
    let (code, table, _) = run(&["-f", "plan/before"]);
    assert_eq!(code, 2);
    expect("new.txt", &table);
}

#[test]
fn mistakes_are_shown_with_their_places() {
    let (code, table, complaints) = run(&["-f", "plan/broken", "--against", "plan/before"]);
    assert_eq!((code, table.as_str()), (1, ""));
    expect("broken.txt", &complaints);
    let (code, _, complaints) = run(&["-f", "plan/nowhere"]);
    assert_eq!(code, 1);
    assert!(complaints.contains("plan/nowhere: cannot be read"), "{complaints}");
}

#[test]
fn what_cannot_be_changed_is_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan/after/homes.yaml"))
        .unwrap();
    fs::write(dir.path().join("homes.yaml"), text.replacen("hostname: lake-house", "hostname: sea-house", 1))
        .unwrap();
    let (code, _, complaints) = run(&["-f", dir.path().to_str().unwrap(), "--against", "plan/after"]);
    assert_eq!(code, 1);
    assert!(complaints.contains("spec.hostname cannot be changed"), "{complaints}");
    assert!(complaints.contains("homes.yaml:6:13"), "{complaints}");
}

#[test]
fn standard_input_is_a_folder_with_one_file() {
    let mut text = String::new();
    for file in ["installation", "homes", "blocks"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/plan/after/{file}.yaml"));
        text.push_str("---\n");
        text.push_str(&fs::read_to_string(path).unwrap());
    }
    let pipe = |text: &str| {
        let mut command = latchkey(&["-f", "-", "--against", "plan/after"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        shown(child.wait_with_output().unwrap())
    };
    assert_eq!(pipe(&text).0, 0);
    let (code, _, complaints) = pipe("kind: RemoteInstance\n");
    assert_eq!(code, 1);
    assert!(complaints.contains("standard input:1:7"), "{complaints}");
}

#[test]
fn reported_versions_decide_over_declared_ones() {
    let dir = tempfile::tempdir().unwrap();
    let versions = dir.path().join("versions");
    fs::write(&versions, "homes/lake-house: 2026.11.1\nhomes/attic: 2020.1\nhomes/tower: 2026.11.1\n")
        .unwrap();
    let versions = versions.to_str().unwrap();
    let (code, table, _) = run(&["-f", "plan/after", "--against", "plan/before", "--versions", versions]);
    assert_eq!(code, 2);
    let cut_off = table.split("Would lose access").nth(1).unwrap();
    assert!(cut_off.contains("homes/attic") && !cut_off.contains("homes/lake-house"), "{table}");
    assert!(table.contains("+ homes/tower  https://<random>"), "{table}");
    fs::write(versions, "homes: 1\n").unwrap();
    let (code, _, complaints) = run(&["-f", "plan/after", "--versions", versions]);
    assert_eq!(code, 1);
    assert!(complaints.contains("namespace/name"), "{complaints}");
}

#[test]
fn a_removed_key_and_a_removed_name_cut_somebody_off() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan/before/homes.yaml"))
        .unwrap();
    let key = "  - \"0202020202020202020202020202020202020202020202020202020202020202\"\n";
    let text = text.replace(key, "").replace("  customDomains: [home.example.org]\n", "");
    fs::write(dir.path().join("homes.yaml"), text).unwrap();
    for file in ["installation.yaml", "blocks.yaml"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan/before").join(file);
        fs::copy(from, dir.path().join(file)).unwrap();
    }
    let (code, table, _) = run(&["-f", dir.path().to_str().unwrap(), "--against", "plan/before"]);
    assert_eq!(code, 2);
    let cut_off = table.split("Would lose access: 1").nth(1).unwrap();
    assert!(cut_off.contains("home.example.org leads here no more"), "{table}");
    assert!(cut_off.contains("the key 0202020202020202... are not known any more"), "{table}");
}

#[test]
fn the_state_of_a_running_system_is_compared_with_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let before = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan/before");
    {
        let mut shell = Shell::open(StateFolder::open(&state).unwrap(), Defaults::default()).unwrap();
        let now = Timestamp(1_795_255_200);
        shell.take(&Reading::of_path(&before, &mut Cache::default()), now);
        shell.step(now, Facts::default()).unwrap();
        shell.save().unwrap();
    }
    let content = || fs::read(state.join("memory.json")).unwrap();
    let remembered = content();
    let state_text = state.to_str().unwrap();
    let (code, table, complaints) = run(&["-f", "plan/before", "--state", state_text]);
    assert_eq!((code, table.contains("No changes.")), (0, true), "{table}{complaints}");
    let (code, table, _) = run(&["-f", "plan/after", "--state", state_text]);
    assert_eq!(code, 2);
    assert!(table.contains("Would lose access: 3") && !table.contains("<random>"), "{table}");
    assert_eq!(content(), remembered);
    let empty = dir.path().join("empty");
    drop(StateFolder::open(&empty).unwrap());
    let (code, _, complaints) = run(&["-f", "plan/after", "--state", empty.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(complaints.contains("no seed"), "{complaints}");
}

#[test]
fn help_has_examples_and_exit_codes() {
    let (code, text, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for word in ["latchkey plan -f manifests/ --against", "Exit codes", "--versions", "<random>"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
