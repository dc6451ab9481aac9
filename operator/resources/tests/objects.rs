//! The objects that a real API server is asked about (tests/cluster), read without one: both must agree.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a test that fails")]

use std::path::Path;

use resources::{Observed, Parts, RemoteInstance, VersionBlock};
use serde_json::Value;

/// Every file of a folder: its name, its text, and what is wrong with the object in it.
fn read(folder: &str) -> Vec<(String, String, Result<(), String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cluster/objects").join(folder);
    let mut read = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let object: Value = serde_yaml::from_str(&text).unwrap();
        let verdict = match object.get("kind").and_then(Value::as_str) {
            Some("RemoteInstance") => judge::<RemoteInstance>(object),
            Some("VersionBlock") => judge::<VersionBlock>(object),
            other => panic!("{}: {other:?}", path.display()),
        };
        read.push((path.file_name().unwrap().to_str().unwrap().to_owned(), text, verdict));
    }
    assert!(read.len() > 20);
    read
}

fn judge<T: Parts>(object: Value) -> Result<(), String> {
    match Observed::<T>::read(object).unwrap() {
        Observed::Readable(_) => Ok(()),
        Observed::Unreadable(unreadable) => Err(format!("{}: {}", unreadable.path, unreadable.problem)),
    }
}

#[test]
fn what_the_api_server_accepts_makes_sense() {
    for (name, _, verdict) in read("good") {
        assert_eq!(verdict, Ok(()), "{name}");
    }
}

#[test]
fn what_the_api_server_refuses_makes_no_sense_unless_it_is_judged_later() {
    for (name, text, verdict) in read("bad") {
        let names = text.lines().find_map(|line| line.strip_prefix("# Names: ")).unwrap();
        // The last member of the path, for a missing member is told by its parent.
        let member = names.rsplit('.').next().unwrap();
        let judged_later = text.contains("\n# Later: ");
        match verdict {
            Ok(()) => assert!(judged_later, "{name} is read as if nothing were wrong"),
            Err(told) => {
                assert!(!judged_later, "{name} is refused here, too: {told}");
                assert!(told.contains(member), "{name} does not name {names}: {told}");
            }
        }
    }
}
