use std::fs;

use super::*;
use crate::fault::FaultKind;

const LAKE: &str = "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {name: lake}\nspec: {enabled: true}\n";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn names(reading: &Reading, folder: &tempfile::TempDir) -> Vec<String> {
    let front = format!("{}/", folder.path().display());
    reading
        .files
        .iter()
        .filter(|(_, file)| !file.objects.is_empty())
        .map(|(name, _)| name.strip_prefix(&front).unwrap().to_owned())
        .collect()
}

#[test]
fn manifests_are_found_in_subfolders_and_hidden_names_are_not() {
    let folder = folder(&[
        ("a.yaml", LAKE),
        ("b.YML", LAKE),
        ("deep/er/c.json", LAKE),
        ("notes.txt", LAKE),
        (".git/d.yaml", LAKE),
        (".e.yaml", LAKE),
        ("other.yaml", "kind: Secret\nstringData: {x: {{ y }}\n"),
    ]);
    fs::create_dir(folder.path().join("folder.yaml")).unwrap();
    let reading = Reading::of_path(folder.path(), &mut Cache::default());
    assert_eq!(names(&reading, &folder), ["a.yaml", "b.YML", "deep/er/c.json"]);
    assert!(reading.faults.is_empty() && !reading.incomplete);
    assert!(reading.files.values().all(|file| file.faults.is_empty()), "{reading:?}");
}

#[cfg(unix)]
#[test]
fn a_mounted_config_map_is_read_once() {
    use std::os::unix::fs::symlink;
    let folder = folder(&[("..2026/lake.yaml", LAKE)]);
    symlink("..2026", folder.path().join("..data")).unwrap();
    symlink("..data/lake.yaml", folder.path().join("lake.yaml")).unwrap();
    symlink(folder.path(), folder.path().join("loop")).unwrap();
    symlink("nowhere", folder.path().join("gone.yaml")).unwrap();
    let reading = Reading::of_path(folder.path(), &mut Cache::default());
    assert_eq!(names(&reading, &folder), ["lake.yaml"]);
    assert!(!reading.incomplete);
}

#[test]
fn what_cannot_be_read_is_told_and_makes_the_file_incomplete() {
    let folder = folder(&[("a.yaml", LAKE), ("b.yaml", "kind: RemoteInstance\nx: [\n")]);
    fs::write(folder.path().join("c.yaml"), b"# latchkey \xff\n").unwrap();
    fs::write(folder.path().join("d.yaml"), b"\xff\xfe\x00").unwrap();
    let large = format!("# latchkey\n{}", " ".repeat(MAX_FILE_BYTES));
    fs::write(folder.path().join("e.yaml"), large).unwrap();
    let reading = Reading::of_path(folder.path(), &mut Cache::default());
    let told: Vec<_> = reading
        .files
        .values()
        .flat_map(|file| file.faults.iter().map(|fault| (fault.kind, file.incomplete)))
        .collect();
    assert_eq!(told, [(FaultKind::Syntax, true), (FaultKind::Syntax, true), (FaultKind::TooMuch, true)]);

    let gone = Reading::of_path(&folder.path().join("nowhere"), &mut Cache::default());
    assert!(gone.incomplete && gone.faults[0].to_string().contains("nowhere: cannot be read"));
}

#[test]
fn a_secret_beside_our_documents_is_not_shown() {
    let text = format!("{LAKE}---\napiVersion: v1\nkind: Secret\nstringData:\n  password: hunter2: x\n");
    let reading = Reading::of_text("a.yaml", &text);
    let [fault] = &reading.files["a.yaml"].faults[..] else { panic!("{reading:?}") };
    assert!(fault.place.is_none() && fault.to_string().contains("line 9"), "{fault}");
    assert_eq!(reading.files["a.yaml"].objects.len(), 1);
}

#[test]
fn an_old_file_that_did_not_change_is_not_read_again() {
    let folder = folder(&[("a.yaml", LAKE), ("b.yaml", LAKE)]);
    let hour_ago = SystemTime::now() - Duration::from_hours(1);
    // Not old, but not a moment of its own either: what a coarse clock of a file system gives two writes.
    let just_now = SystemTime::now();
    let touch = |name: &str, at: SystemTime| {
        File::options().write(true).open(folder.path().join(name)).unwrap().set_modified(at).unwrap();
    };
    touch("a.yaml", hour_ago);
    touch("b.yaml", just_now);
    let mut cache = Cache::default();
    let first = Reading::of_path(folder.path(), &mut cache);
    // Same length, same time: only the content would tell, and an old file is not opened for that.
    fs::write(folder.path().join("a.yaml"), LAKE.replace("lake", "cake")).unwrap();
    touch("a.yaml", hour_ago);
    let young = |text: &str| {
        fs::write(folder.path().join("b.yaml"), text).unwrap();
        touch("b.yaml", just_now);
    };
    young(&LAKE.replace("lake", "cake"));
    let second = Reading::of_path(folder.path(), &mut cache);
    let same = |name: &str| {
        let name = folder.path().join(name).display().to_string();
        Arc::ptr_eq(&first.files[&name], &second.files[&name])
    };
    assert!(same("a.yaml"));
    assert!(!same("b.yaml"), "a young file may change twice within one tick");
    assert!(!first.says_the_same(&second));
    young(&LAKE.replace("lake", "cake"));
    assert!(second.says_the_same(&Reading::of_path(folder.path(), &mut cache)), "the same text is no change");
}
