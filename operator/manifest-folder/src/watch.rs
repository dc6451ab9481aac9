//! Watches a folder: what changed is read a moment later, as a whole.
//!
//! The system reports changes in the folder, not of single files: editors write another file and rename it, and
//! Kubernetes swaps the link `..data`. Where the system reports nothing (network file systems, too many watches), the
//! folder is looked at every other second.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::files::{Cache, Reading};

/// How a folder is watched.
#[derive(Debug, Clone, Copy)]
pub struct FolderWatch {
    /// A burst of changes is read once it was quiet for this long.
    pub quiet: Duration,
    /// ... or once it went on for this long.
    pub at_most: Duration,
    /// The folder is looked at this often even when the system reports nothing.
    pub poll: Duration,
    /// Ask the system to report changes?
    pub events: bool,
}

impl Default for FolderWatch {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(30),
            at_most: Duration::from_millis(150),
            poll: Duration::from_secs(2),
            events: true,
        }
    }
}

/// A watched folder (or file). Watching ends when it is dropped.
#[derive(Debug)]
pub struct ManifestFolder {
    path: PathBuf,
    readings: watch::Receiver<Arc<Reading>>,
    watching: JoinHandle<()>,
}

impl ManifestFolder {
    /// Reads the folder, and from then on watches it. One that cannot be read is a reading, too, with a fault in it.
    pub async fn open(path: impl Into<PathBuf>, how: FolderWatch) -> Self {
        let path = path.into();
        // Watching begins before reading, so that no change falls between the two.
        let changed = Arc::new(Notify::new());
        let mut watched =
            Watched { path: path.clone(), cache: Cache::default(), changed, how, watcher: None, root: None };
        watched.watch_again();
        let first = watched.read().await.unwrap_or_default();
        let (sender, readings) = watch::channel(Arc::new(first));
        let watching = tokio::spawn(watched.run(sender));
        Self { path, readings, watching }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds now.
    pub fn snapshot(&self) -> Arc<Reading> {
        Arc::clone(&self.readings.borrow())
    }

    /// Waits until it holds something else. Nothing is lost when this is dropped before it is ready.
    pub async fn changed(&mut self) -> Arc<Reading> {
        if self.readings.changed().await.is_err() {
            // The watching task ends with the runtime alone: nothing will change any more.
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.readings.borrow_and_update())
    }
}

impl Drop for ManifestFolder {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// The task that watches.
struct Watched {
    path: PathBuf,
    cache: Cache,
    changed: Arc<Notify>,
    how: FolderWatch,
    watcher: Option<RecommendedWatcher>,
    /// Which folder is watched: another one may come to stand at the path.
    root: Option<(u64, u64)>,
}

impl Watched {
    async fn run(mut self, readings: watch::Sender<Arc<Reading>>) {
        let mut poll = interval(self.how.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.changed.notified() => quiet_down(&self.changed, &self.how).await,
                _ = poll.tick() => self.watch_again(),
            }
            let Some(reading) = self.read().await else { return };
            readings.send_if_modified(|known| {
                let is_new = !known.says_the_same(&reading);
                if is_new {
                    *known = Arc::new(reading);
                }
                is_new
            });
        }
    }

    /// Reads where blocking harms nobody; `None` when the runtime is ending.
    async fn read(&mut self) -> Option<Reading> {
        let (path, mut cache) = (self.path.clone(), std::mem::take(&mut self.cache));
        let read = tokio::task::spawn_blocking(move || {
            let reading = Reading::of_path(&path, &mut cache);
            (reading, cache)
        });
        let (reading, cache) = read.await.ok()?;
        self.cache = cache;
        Some(reading)
    }

    /// Watches what stands at the path now.
    fn watch_again(&mut self) {
        if !self.how.events {
            return;
        }
        let root = identity(&self.path);
        if root.is_none() || (root == self.root && self.watcher.is_some()) {
            return;
        }
        self.root = root;
        self.watcher = watcher(&self.path, Arc::clone(&self.changed));
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    // A file is watched by its folder: the file itself may be another one at any time.
    if metadata.is_file() {
        let folder = std::fs::metadata(parent(path)).ok()?;
        return Some((folder.dev(), folder.ino()));
    }
    Some((metadata.dev(), metadata.ino()))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn watcher(path: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let on_event = move |event: notify::Result<Event>| {
        // An error may stand for lost events.
        if event.map_or(true, |event| may_change(&event)) {
            changed.notify_one();
        }
    };
    let (root, mode) = if path.is_file() {
        (parent(path), RecursiveMode::NonRecursive)
    } else {
        (path, RecursiveMode::Recursive)
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(root, mode)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(folder = %root.display(), %error, "changes are not reported by the system; polling only");
            None
        }
    }
}

/// Can the event mean other contents? Reading a file, ours included, is no such event.
fn may_change(event: &Event) -> bool {
    let only_looked_at =
        matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    event.need_rescan() || !only_looked_at
}

/// Waits until a burst of changes is over, but not for ever.
async fn quiet_down(changed: &Notify, how: &FolderWatch) {
    let until_quiet = async { while timeout(how.quiet, changed.notified()).await.is_ok() {} };
    let _over = timeout(how.at_most, until_quiet).await;
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
