//! A folder accepts what an API server accepts, and refuses what it refuses, naming the same member. The objects are
//! those that `tests/cluster` sends to a real one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may")]

use std::fs;
use std::path::{Path, PathBuf};

use manifest_folder::{Cache, Fault, LastGood, Reading, settle};

fn objects(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cluster/objects").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20);
    files
}

fn faults(path: &Path) -> Vec<Fault> {
    settle(&Reading::of_path(path, &mut Cache::default()), &LastGood::new()).faults
}

#[test]
fn what_it_accepts_is_accepted() {
    let wrong: Vec<String> =
        objects("good").iter().flat_map(|path| faults(path)).map(|fault| fault.to_string()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `spec.acceptedBlocks[0].name` is named by a message about it, or about the list or entry it is in or would hold.
fn names(fault: &Fault, member: &str) -> bool {
    let path = fault.message.split([' ', ':']).next().unwrap_or_default();
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    within(path, member) || within(member, path)
}

#[test]
fn what_it_refuses_is_refused_and_the_member_is_named() {
    let mut wrong = Vec::new();
    for path in objects("bad") {
        let text = fs::read_to_string(&path).unwrap();
        let member = text.lines().find_map(|line| line.strip_prefix("# Names: ")).unwrap();
        let faults = faults(&path);
        if !faults.iter().any(|fault| names(fault, member)) {
            let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
            wrong.push(format!("{}: {member}: {told:?}", path.file_name().unwrap().display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
