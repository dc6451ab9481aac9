//! Routes from a file that is watched: a changed file is in force a moment later, an invalid one leaves the last
//! good table in force.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use route_table::{MAX_FILE_BYTES, RouteTable, TableError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::live::{Live, LiveRoutes};
use crate::clock;

/// The name Kubernetes swaps to put new contents of a volume in place all at once.
const KUBERNETES_DATA: &str = "..data";

/// How a file is watched.
#[derive(Debug, Clone, Copy)]
pub struct FileWatch {
    /// A burst of changes is read once it was quiet for this long.
    pub quiet: Duration,
    /// ... or once it went on for this long.
    pub at_most: Duration,
    /// The file is looked at this often even when the system reports nothing (network file systems, symbolic
    /// links that lead elsewhere).
    pub poll: Duration,
    /// Ask the system to report changes?
    pub events: bool,
}

impl Default for FileWatch {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(50),
            at_most: Duration::from_millis(500),
            poll: Duration::from_secs(2),
            events: true,
        }
    }
}

/// Why a routes file gives no table.
#[derive(Debug, thiserror::Error)]
pub enum RoutesFileError {
    /// It cannot be read.
    #[error("routes file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no table.
    #[error("routes file {}: {source}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: TableError,
    },
    /// The process is ending.
    #[error("routes file {}: reading it was cut short", path.display())]
    Cancelled {
        /// Which file.
        path: PathBuf,
    },
}

/// What is in force, and what went wrong since, for the admin page and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Revision of the table in force.
    pub revision: u64,
    /// How many routes it has.
    pub routes: usize,
    /// When it was read.
    pub loaded_at: SystemTime,
    /// Why the file as it is now is not in force; nothing when it is.
    pub last_error: Option<FileProblem>,
}

/// Why the file as it is now is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// When that was found.
    pub at: SystemTime,
    /// What a person should read.
    pub message: String,
}

/// A watched routes file. Watching ends when it is dropped.
#[derive(Debug)]
pub struct RoutesFile {
    live: Arc<Live>,
    state: watch::Receiver<FileState>,
    watching: JoinHandle<()>,
}

impl RoutesFile {
    /// Reads the file, and from then on watches it. A file that is invalid now is an error: there is no last good
    /// table to go on with.
    pub async fn open(path: impl Into<PathBuf>, how: FileWatch) -> Result<Self, RoutesFileError> {
        let path = path.into();
        // Watching begins before reading, so that no change falls between the two.
        let changed = Arc::new(Notify::new());
        let watcher = if how.events { watch_folder(&path, Arc::clone(&changed)) } else { None };
        let read = read(path.clone(), None).await;
        let Reading::New { hash, stamp, table } = read else { return Err(read.into_error(path)) };
        let table = table.map_err(|source| RoutesFileError::Invalid { path: path.clone(), source })?;
        let (state, state_receiver) = watch::channel(FileState {
            revision: table.revision,
            routes: table.len(),
            loaded_at: clock::now(),
            last_error: None,
        });
        tracing::info!(path = %path.display(), revision = table.revision, routes = table.len(), "routes are in force");
        let live = Live::new(table);
        let watch_task =
            Watched { path, live: Arc::clone(&live), state, seen: Some(hash), stamp: Some(stamp) };
        let watching = tokio::spawn(watch_task.run(watcher, changed, how));
        Ok(Self { live, state: state_receiver, watching })
    }

    /// Where its tables go.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// A subscription to its tables.
    pub fn subscribe(&self) -> LiveRoutes {
        self.live.subscribe()
    }

    /// What is in force, and what went wrong since. The receiver also tells when that changes.
    pub fn state(&self) -> watch::Receiver<FileState> {
        self.state.clone()
    }
}

impl Drop for RoutesFile {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Asks the system to report changes in the file's folder. The folder and not the file: editors and Kubernetes put
/// another file in its place.
fn watch_folder(path: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let name = path.file_name()?.to_owned();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let on_event = move |event: notify::Result<Event>| {
        // An error may stand for lost events.
        if event.map_or(true, |event| concerns(&event, &name)) {
            changed.notify_one();
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "changes are not reported by the system; polling only");
            None
        }
    }
}

/// Can the event mean that the file has other contents? Reading it, ours included, is no such event.
fn concerns(event: &Event, name: &OsStr) -> bool {
    let only_looked_at =
        matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|changed| changed == name || changed == KUBERNETES_DATA)
    };
    event.need_rescan() || (!only_looked_at && event.paths.iter().any(named))
}

/// What tells one version of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    file: (u64, u64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let file = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let file = (0, 0);
        Self { modified: metadata.modified().ok(), length: metadata.len(), file }
    }
}

/// What reading the file gave.
enum Reading {
    /// The text that was seen last.
    Same { stamp: Stamp },
    /// Another text.
    New { hash: u64, stamp: Stamp, table: Result<RouteTable, TableError> },
    /// No text.
    Failed(std::io::Error),
    /// The runtime is ending.
    Cancelled,
}

impl Reading {
    fn into_error(self, path: PathBuf) -> RoutesFileError {
        match self {
            Self::Failed(source) => RoutesFileError::Read { path, source },
            Self::New { table: Err(source), .. } => RoutesFileError::Invalid { path, source },
            Self::New { .. } | Self::Same { .. } | Self::Cancelled => RoutesFileError::Cancelled { path },
        }
    }
}

/// Reads the file where blocking harms nobody; `seen` is the hash of the text that needs no parsing.
async fn read(path: PathBuf, seen: Option<u64>) -> Reading {
    let read = tokio::task::spawn_blocking(move || {
        let (text, stamp) = match read_text(&path) {
            Ok(read) => read,
            Err(error) => return Reading::Failed(error),
        };
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if seen == Some(hash) {
            Reading::Same { stamp }
        } else {
            Reading::New { hash, stamp, table: RouteTable::parse(&text) }
        }
    });
    read.await.unwrap_or(Reading::Cancelled)
}

/// The file's text, one byte more than allowed at most: the parser then refuses it.
fn read_text(path: &Path) -> std::io::Result<(String, Stamp)> {
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = String::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok((text, stamp))
}

/// The task that watches.
struct Watched {
    path: PathBuf,
    live: Arc<Live>,
    state: watch::Sender<FileState>,
    /// Hash of the text seen last, good or bad.
    seen: Option<u64>,
    /// Stamp of the file seen last.
    stamp: Option<Stamp>,
}

impl Watched {
    async fn run(mut self, watcher: Option<RecommendedWatcher>, changed: Arc<Notify>, how: FileWatch) {
        let mut poll = interval(how.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = changed.notified() => {
                    quiet_down(&changed, &how).await;
                    self.reload().await;
                }
                _ = poll.tick() => {
                    let stamp = tokio::fs::metadata(&self.path).await.ok().as_ref().map(Stamp::of);
                    if stamp != self.stamp {
                        self.reload().await;
                    }
                }
            }
            // Events end with the watcher: it lives as long as this loop.
            let _ = &watcher;
        }
    }

    async fn reload(&mut self) {
        match read(self.path.clone(), self.seen).await {
            Reading::Same { stamp } => self.stamp = Some(stamp),
            Reading::New { hash, stamp, table } => {
                (self.seen, self.stamp) = (Some(hash), Some(stamp));
                match table {
                    Ok(table) => self.put_in_force(table),
                    Err(source) => self.refuse(&RoutesFileError::Invalid { path: self.path.clone(), source }),
                }
            }
            Reading::Failed(source) => {
                (self.seen, self.stamp) = (None, None);
                self.refuse(&RoutesFileError::Read { path: self.path.clone(), source });
            }
            Reading::Cancelled => {}
        }
    }

    fn put_in_force(&self, table: RouteTable) {
        let (revision, routes) = (table.revision, table.len());
        self.live.publish(table);
        self.state.send_replace(FileState { revision, routes, loaded_at: clock::now(), last_error: None });
        tracing::info!(path = %self.path.display(), revision, routes, "routes are in force");
    }

    fn refuse(&self, error: &RoutesFileError) {
        let message = error.to_string();
        let known = self.state.borrow().last_error.as_ref().is_some_and(|known| known.message == message);
        if !known {
            tracing::warn!(%error, "the last good routes stay in force");
            let problem = FileProblem { at: clock::now(), message };
            self.state.send_modify(|state| state.last_error = Some(problem));
        }
    }
}

/// Waits until a burst of changes is over, but not for ever.
async fn quiet_down(changed: &Notify, how: &FileWatch) {
    let until_quiet = async { while timeout(how.quiet, changed.notified()).await.is_ok() {} };
    let _over = timeout(how.at_most, until_quiet).await;
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
