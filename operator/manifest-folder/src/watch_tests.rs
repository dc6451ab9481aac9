use std::fs;
use std::time::Instant;

use super::*;

/// Far longer than any test should take; only a failure waits for it.
const LIMIT: Duration = Duration::from_secs(20);

fn lake(spec: &str) -> String {
    format!(
        "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {{name: lake}}\nspec: {{{spec}}}\n"
    )
}

fn events_only() -> FolderWatch {
    FolderWatch { poll: Duration::from_hours(1), ..FolderWatch::default() }
}

async fn next(folder: &mut ManifestFolder) -> Arc<Reading> {
    timeout(LIMIT, folder.changed()).await.expect("a change is seen")
}

fn specs(reading: &Reading) -> Vec<String> {
    let objects = reading.files.values().flat_map(|file| &file.objects);
    objects.map(|object| object.document["spec"].to_string()).collect()
}

/// Waits until the folder says so; a burst may be read in several parts.
async fn until(folder: &mut ManifestFolder, holds: impl Fn(&Reading) -> bool) {
    while !holds(&folder.snapshot()) {
        next(folder).await;
    }
}

#[tokio::test]
async fn writing_renaming_and_removing_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lake.yaml");
    fs::write(&path, lake("tunnels: 1")).unwrap();
    let mut folder = ManifestFolder::open(dir.path(), events_only()).await;
    assert_eq!(specs(&folder.snapshot()), [r#"{"tunnels":1}"#]);

    let begin = Instant::now();
    fs::write(&path, lake("tunnels: 2")).unwrap();
    until(&mut folder, |reading| specs(reading) == [r#"{"tunnels":2}"#]).await;
    println!("written and read after {:?}", begin.elapsed());

    // As editors do it.
    fs::write(dir.path().join(".lake.yaml.swp"), lake("tunnels: 3")).unwrap();
    fs::rename(dir.path().join(".lake.yaml.swp"), &path).unwrap();
    until(&mut folder, |reading| specs(reading) == [r#"{"tunnels":3}"#]).await;

    fs::create_dir(dir.path().join("more")).unwrap();
    fs::write(dir.path().join("more/other.yaml"), lake("tunnels: 4")).unwrap();
    until(&mut folder, |reading| specs(reading).len() == 2).await;

    fs::remove_file(&path).unwrap();
    until(&mut folder, |reading| specs(reading) == [r#"{"tunnels":4}"#]).await;
}

#[tokio::test]
async fn a_swapped_config_map_is_seen() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let put = |version: &str, spec: &str| {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("lake.yaml"), lake(spec)).unwrap();
        symlink(version, dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    put("..1", "tunnels: 1");
    symlink("..data/lake.yaml", dir.path().join("lake.yaml")).unwrap();
    let mut folder = ManifestFolder::open(dir.path(), events_only()).await;
    assert_eq!(specs(&folder.snapshot()), [r#"{"tunnels":1}"#]);
    put("..2", "tunnels: 2");
    until(&mut folder, |reading| specs(reading) == [r#"{"tunnels":2}"#]).await;
}

#[tokio::test]
async fn without_events_polling_finds_it_and_what_is_the_same_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lake.yaml");
    fs::write(&path, lake("tunnels: 1")).unwrap();
    let how = FolderWatch { events: false, poll: Duration::from_millis(20), ..FolderWatch::default() };
    let mut folder = ManifestFolder::open(&path, how).await;
    fs::write(&path, lake("tunnels: 1")).unwrap();
    fs::write(dir.path().join("other.yaml"), lake("tunnels: 7")).unwrap();
    fs::write(&path, lake("tunnels: 2")).unwrap();
    let reading = next(&mut folder).await;
    // Whatever was read in between, the same text is no change and the other file is none of ours.
    assert!(specs(&reading) == [r#"{"tunnels":2}"#] || specs(&reading).is_empty(), "{reading:?}");
    until(&mut folder, |reading| specs(reading) == [r#"{"tunnels":2}"#]).await;
    fs::remove_file(&path).unwrap();
    until(&mut folder, |reading| reading.incomplete).await;
}

#[test]
fn what_stands_at_the_path_is_watched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manifests");
    fs::create_dir(&path).unwrap();
    let (changed, how) = (Arc::new(Notify::new()), FolderWatch::default());
    let mut watched =
        Watched { path: path.clone(), cache: Cache::default(), changed, how, watcher: None, root: None };
    watched.watch_again();
    let first = watched.root;
    fs::rename(&path, dir.path().join("old")).unwrap();
    watched.watch_again();
    assert_eq!(watched.root, first, "nothing to watch, so the old watch stays");
    fs::create_dir(&path).unwrap();
    watched.watch_again();
    assert!(watched.root.is_some() && watched.root != first && watched.watcher.is_some());
}

#[tokio::test]
async fn another_folder_at_the_same_path_is_seen_and_watched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manifests");
    let put = |name: &str, spec: &str| {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("lake.yaml"), lake(spec)).unwrap();
    };
    put("manifests", "tunnels: 1");
    put("next", "tunnels: 2");
    let how = FolderWatch { poll: Duration::from_millis(50), ..FolderWatch::default() };
    let mut folder = ManifestFolder::open(&path, how).await;
    fs::rename(&path, dir.path().join("old")).unwrap();
    fs::rename(dir.path().join("next"), &path).unwrap();
    until(&mut folder, |reading| specs(reading) == [r#"{"tunnels":2}"#]).await;
    fs::write(path.join("lake.yaml"), lake("tunnels: 3")).unwrap();
    until(&mut folder, |reading| specs(reading) == [r#"{"tunnels":3}"#]).await;
}
