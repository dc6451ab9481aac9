//! Changes of a real file on a real file system. Every wait ends with what is waited for, or fails after
//! [`PATIENCE`].

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::routes::RouteSource;

const PATIENCE: Duration = Duration::from_secs(20);

/// Only events: the poll would come too late for any test.
fn events_only() -> FileWatch {
    FileWatch { poll: Duration::from_hours(1), ..FileWatch::default() }
}

fn poll_only() -> FileWatch {
    FileWatch { poll: Duration::from_millis(10), events: false, ..FileWatch::default() }
}

fn routes(revision: u64) -> String {
    format!("revision: {revision}\nroutes:\n- id: homes/lake\n  hostnames: [lake.example]\n")
}

/// Puts another file in its place, as editors do.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

async fn open(folder: &TempDir, how: FileWatch) -> (PathBuf, RoutesFile) {
    let path = folder.path().join("routes.yaml");
    fs::write(&path, routes(1)).unwrap();
    let file = RoutesFile::open(&path, how).await.unwrap();
    assert_eq!(file.live().current().revision, 1);
    (path, file)
}

async fn wait_for_revision(file: &RoutesFile, revision: u64) {
    let mut source = file.subscribe();
    let wait = async {
        while source.current().revision != revision {
            source.changed().await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("revision {revision} never came: {:?}", file.state()));
}

async fn wait_for_state(file: &RoutesFile, reached: impl FnMut(&FileState) -> bool) -> FileState {
    let mut state = file.state();
    timeout(PATIENCE, state.wait_for(reached)).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn a_replaced_file_is_in_force_by_events_alone() {
    let folder = TempDir::new().unwrap();
    let (path, file) = open(&folder, events_only()).await;
    replace(&path, &routes(2));
    wait_for_revision(&file, 2).await;
    replace(&path, &routes(3));
    wait_for_revision(&file, 3).await;
    let state = wait_for_state(&file, |state| state.revision == 3).await;
    assert_eq!((state.routes, state.last_error), (1, None));
}

#[tokio::test]
async fn a_file_written_in_place_is_in_force_by_events_alone() {
    let folder = TempDir::new().unwrap();
    let (path, file) = open(&folder, events_only()).await;
    fs::write(&path, routes(2)).unwrap();
    wait_for_revision(&file, 2).await;
}

#[tokio::test]
async fn a_kubernetes_volume_is_swapped_by_events_alone() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    let version = |name: &str, revision| {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("routes.yaml"), routes(revision)).unwrap();
    };
    version("..2026_11_21_1", 1);
    symlink("..2026_11_21_1", root.join("..data")).unwrap();
    symlink("..data/routes.yaml", root.join("routes.yaml")).unwrap();
    let file = RoutesFile::open(root.join("routes.yaml"), events_only()).await.unwrap();
    version("..2026_11_21_2", 2);
    symlink("..2026_11_21_2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    fs::remove_dir_all(root.join("..2026_11_21_1")).unwrap();
    wait_for_revision(&file, 2).await;
}

#[tokio::test]
async fn polling_alone_finds_a_changed_file() {
    let folder = TempDir::new().unwrap();
    let (path, file) = open(&folder, poll_only()).await;
    replace(&path, &routes(2));
    wait_for_revision(&file, 2).await;
}

#[tokio::test]
async fn an_invalid_file_leaves_the_last_good_table_in_force() {
    let folder = TempDir::new().unwrap();
    let (path, file) = open(&folder, events_only()).await;
    let good = wait_for_state(&file, |_| true).await;
    replace(&path, &routes(2).replace("lake.example", "'*.example'"));
    let state = wait_for_state(&file, |state| state.last_error.is_some()).await;
    let message = state.last_error.unwrap().message;
    assert!(message.contains("routes.yaml: line "), "{message}");
    assert!(message.contains("route homes/lake: hostnames[0]:"), "{message}");
    assert_eq!((state.revision, state.loaded_at), (1, good.loaded_at));
    assert_eq!(file.live().current().revision, 1);
    assert!(file.live().current().by_host("lake.example").is_some());

    // The very text that is in force mends it, too.
    replace(&path, &routes(1));
    wait_for_state(&file, |state| state.last_error.is_none()).await;
    replace(&path, &routes(3));
    wait_for_revision(&file, 3).await;
}

#[tokio::test]
async fn a_removed_file_leaves_the_last_good_table_in_force() {
    for how in [events_only(), poll_only()] {
        let folder = TempDir::new().unwrap();
        let (path, file) = open(&folder, how).await;
        fs::remove_file(&path).unwrap();
        let state = wait_for_state(&file, |state| state.last_error.is_some()).await;
        assert!(state.last_error.unwrap().message.contains("routes.yaml"));
        assert_eq!(file.live().current().revision, 1);
        fs::write(&path, routes(1)).unwrap();
        wait_for_state(&file, |state| state.last_error.is_none()).await;
    }
}

#[tokio::test]
async fn the_same_text_is_not_published_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("routes.yaml");
    let live = Live::new(RouteTable::default());
    let empty = FileState { revision: 0, routes: 0, loaded_at: SystemTime::UNIX_EPOCH, last_error: None };
    let state = watch::Sender::new(empty);
    let mut watched = Watched { path: path.clone(), live: Arc::clone(&live), state, seen: None, stamp: None };
    for (text, publications) in [(routes(1), 1), (routes(1), 1), (routes(2), 2), (routes(1), 3)] {
        replace(&path, &text);
        watched.reload().await;
        assert_eq!(live.publications(), publications);
    }
}

#[tokio::test]
async fn a_file_that_is_wrong_from_the_start_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("routes.yaml");
    let missing = RoutesFile::open(&path, events_only()).await.unwrap_err();
    assert!(missing.to_string().contains("routes.yaml: No such file"), "{missing}");
    fs::write(&path, "routes: 5\n").unwrap();
    let invalid = RoutesFile::open(&path, events_only()).await.unwrap_err();
    assert!(invalid.to_string().contains("routes.yaml: line 1"), "{invalid}");
}

#[test]
fn reading_a_file_is_no_change_and_neighbours_do_not_matter() {
    let event = |kind, path: &str| Event::new(kind).add_path(path.into());
    let name = OsStr::new("routes.yaml");
    let modify = EventKind::Modify(notify::event::ModifyKind::Any);
    assert!(concerns(&event(modify, "/x/routes.yaml"), name));
    assert!(concerns(&event(modify, "/x/..data"), name));
    assert!(concerns(
        &event(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/x/routes.yaml"),
        name
    ));
    assert!(!concerns(&event(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/x/routes.yaml"), name));
    assert!(!concerns(
        &event(EventKind::Access(AccessKind::Close(AccessMode::Read)), "/x/routes.yaml"),
        name
    ));
    assert!(!concerns(&event(modify, "/x/other.yaml"), name));
}
