//! The examples do what their READMEs say. (`latchkey up examples/first-minute` is tests/first-minute's.)

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests may")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples").join(name)
}

/// All manifests of examples one after the other, as `cat` would.
fn manifests(names: &[&str]) -> String {
    let mut files: Vec<_> = names
        .iter()
        .flat_map(|name| fs::read_dir(example(name)).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn plan(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_latchkey"))
        .arg("plan")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // Who reads nothing closes its end: that is no failure of ours.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn path(name: &str) -> String {
    example(name).to_str().unwrap().to_owned()
}

#[test]
fn every_example_is_there_sound_and_explained() {
    let mut names: Vec<_> = fs::read_dir(example(""))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["family", "first-minute", "vendor", "vendor-change"]);
    for name in names {
        assert!(example(&name).join("README.md").exists(), "{name}");
        let (code, out, err) = plan(&["-f", &path(&name)], "");
        // Against nothing, everything is new.
        assert_eq!(code, Some(2), "{name}: {out}{err}");
        let (code, out, err) = plan(&["-f", &path(&name), "--against", &path(&name)], "");
        assert_eq!(code, Some(0), "{name} differs from itself: {out}{err}");
    }
}

#[test]
fn the_family_is_served_but_for_who_is_off_or_too_old() {
    let (_, out, _) = plan(&["-f", &path("family"), "-o", "json"], "");
    for served in ["lake-house", "grandma", "cabin", "tom", "mia", "workshop", "boat"] {
        assert!(out.contains(&format!("{served}.houses.example.org")), "{served} in {out}");
    }
    let (_, table, _) = plan(&["-f", &path("family")], "");
    let line = |name: &str| {
        let found = table.lines().find(|line| line.contains(&format!("family/{name}")));
        found.unwrap_or_else(|| panic!("no {name} in {table}")).to_lowercase()
    };
    assert!(line("attic").contains("core-2021-1-4") || line("attic").contains("block"), "{table}");
}

#[test]
fn a_new_block_names_who_would_lose_access_and_exits_2() {
    let input = manifests(&["vendor", "vendor-change"]);
    let (code, out, err) = plan(&["-f", "-", "--against", &path("vendor")], &input);
    assert_eq!(code, Some(2), "{out}{err}");
    // From the manifests themselves: every version that the new block names, in either namespace.
    let vulnerable = ["2026.3.2", "2026.4.0", "2026.4.1"];
    let documents = manifests(&["vendor"]);
    let cut: Vec<_> = documents
        .split("---\n")
        .filter(|document| {
            vulnerable.iter().any(|version| document.contains(&format!("version: \"{version}\"")))
        })
        .map(|document| {
            let word = |key: &str| {
                let line = document.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap_or_else(|| panic!("{key} in {document}")).to_owned()
            };
            format!("{}/{}", word("  namespace: "), word("  name: "))
        })
        .collect();
    assert!(cut.len() >= 5 && cut.iter().any(|id| id.starts_with("offices/")), "{cut:?}");
    for id in &cut {
        assert!(out.contains(id), "{id} in {out}");
    }
    assert!(out.contains("core-2026-4-2"), "{out}");
    assert!(!out.contains("homes/home-04"), "who is not concerned is not named: {out}");
}

#[test]
fn a_broken_manifest_prints_a_span_and_exits_1() {
    let broken = manifests(&["first-minute"]).replace("  enabled: true", "  enabeld: true");
    let (code, out, err) = plan(&["-f", "-"], &broken);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("enabeld") && err.contains("enabled"), "did you mean: {err}");
    let line = broken.lines().position(|line| line.contains("enabeld")).unwrap() + 1;
    assert!(err.contains(&format!(":{line}:")) || err.contains(&format!("{line} │")), "line {line}: {err}");
}
