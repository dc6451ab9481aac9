//! Finds the manifests of a folder and reads them, within bounds.
//!
//! Which files: `*.yaml`, `*.yml` and `*.json`, in subfolders too (as `kubectl apply -R` does). Hidden names are
//! passed over, and with them `.git` and the `..data` of a mounted `ConfigMap`. Links to files are followed, links to
//! folders are not.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::document::{self, Places};
use crate::fault::{Fault, FaultKind, SourceText};
use crate::manifest::FileReading;

/// Largest file.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
/// Most manifests of a folder.
pub const MAX_FILES: usize = 20_000;
/// Most bytes of a folder.
pub const MAX_FOLDER_BYTES: usize = 256 * 1024 * 1024;
/// Deepest subfolder.
pub const MAX_FOLDER_DEPTH: usize = 16;
/// Most entries of all kinds that are looked at.
const MAX_ENTRIES: usize = 200_000;
/// Reading a deep document takes stack; a thread's usual two megabytes would do for half the depth allowed.
const STACK_BYTES: usize = 32 * 1024 * 1024;
/// A file system may tell two changes in one tick apart by nothing: a file this young is read again.
const YOUNG: Duration = Duration::from_secs(2);

/// All that was read.
#[derive(Debug, Default, Clone)]
pub struct Reading {
    /// What each file holds, by the name people know it by.
    pub files: BTreeMap<String, Arc<FileReading>>,
    /// What is wrong with the folder itself.
    pub faults: Vec<Fault>,
    /// The list of files itself is not known whole: no file is known to be gone.
    pub incomplete: bool,
}

/// What was read before, so that a file that did not change is not read again.
#[derive(Debug, Default)]
pub struct Cache {
    files: HashMap<PathBuf, Known>,
}

/// A file that was read.
#[derive(Debug, Clone)]
struct Known {
    stamp: Stamp,
    /// Of its content: the same content is not parsed again.
    hash: u64,
    file: Arc<FileReading>,
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

    fn is_old(&self) -> bool {
        self.modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > YOUNG)
    }
}

impl Reading {
    /// Reads a folder or a single file.
    pub fn of_path(path: &Path, cache: &mut Cache) -> Self {
        on_a_large_stack(|| read_path(path, cache)).unwrap_or_else(|error| Self::failed(path, &error))
    }

    /// Reads a text, e.g. standard input, under a name.
    pub fn of_text(name: &str, text: &str) -> Self {
        let mut reading = Self::default();
        match on_a_large_stack(|| Ok(read_text(name, text))) {
            Ok(file) => drop(reading.files.insert(name.to_owned(), Arc::new(file))),
            Err(error) => reading.fail(name, &error),
        }
        reading
    }

    /// Is it the same as another reading of the same folder?
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let same_file = |one: (&String, &Arc<FileReading>), two: (&String, &Arc<FileReading>)| {
            one.0 == two.0 && (Arc::ptr_eq(one.1, two.1) || one.1.is_same_failure(two.1))
        };
        let mut pairs = self.files.iter().zip(&other.files);
        self.files.len() == other.files.len()
            && pairs.all(|(one, two)| same_file(one, two))
            && (&self.faults, self.incomplete) == (&other.faults, other.incomplete)
    }

    fn failed(path: &Path, error: &io::Error) -> Self {
        let mut reading = Self::default();
        reading.fail(&path.display().to_string(), error);
        reading
    }

    fn fail(&mut self, name: &str, error: &io::Error) {
        self.faults.push(Fault::of_file(FaultKind::Unreadable, name, format!("cannot be read: {error}")));
        self.incomplete = true;
    }
}

pub(crate) fn on_a_large_stack<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        worker.join().unwrap_or_else(|_| Err(io::Error::other("reading ended unexpectedly")))
    })
}

fn read_path(path: &Path, cache: &mut Cache) -> io::Result<Reading> {
    let mut reading = Reading::default();
    let mut found = Vec::new();
    if fs::metadata(path)?.is_dir() {
        let mut entries = 0;
        list(path, 0, &mut entries, &mut found, &mut reading);
        found.sort();
    } else {
        found.push(path.to_owned());
    }
    if found.len() > MAX_FILES {
        let message = format!("holds {} manifests; at most {MAX_FILES} are read", found.len());
        reading.faults.push(Fault::of_file(FaultKind::TooMuch, path.display().to_string(), message));
        reading.incomplete = true;
        found.truncate(MAX_FILES);
    }
    let mut before = std::mem::take(&mut cache.files);
    let mut bytes = 0_usize;
    for path in found {
        let name = path.display().to_string();
        let known = before.remove(&path);
        match read_file(&path, &name, known, &mut bytes) {
            Ok(known) => {
                reading.files.insert(name, Arc::clone(&known.file));
                cache.files.insert(path, known);
            }
            // Gone between listing and opening: as if it had gone a moment before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let fault = Fault::of_file(FaultKind::Unreadable, &name, format!("cannot be read: {error}"));
                let file = FileReading { faults: vec![fault], incomplete: true, ..FileReading::default() };
                reading.files.insert(name, Arc::new(file));
            }
        }
        if bytes > MAX_FOLDER_BYTES {
            let message =
                format!("its manifests have more than {MAX_FOLDER_BYTES} bytes together; split the folder");
            reading.faults.push(Fault::of_file(FaultKind::TooMuch, path_of_folder(cache), message));
            reading.incomplete = true;
            break;
        }
    }
    Ok(reading)
}

fn path_of_folder(cache: &Cache) -> String {
    cache
        .files
        .keys()
        .next()
        .and_then(|path| path.parent())
        .map_or_else(String::new, |path| path.display().to_string())
}

fn list(folder: &Path, depth: usize, entries: &mut usize, found: &mut Vec<PathBuf>, reading: &mut Reading) {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) => {
            // A subfolder that went away in the meantime is no mistake.
            if depth == 0 || error.kind() != io::ErrorKind::NotFound {
                reading.fail(&folder.display().to_string(), &error);
            }
            return;
        }
    };
    for entry in listing {
        *entries += 1;
        if *entries > MAX_ENTRIES {
            let message =
                format!("holds more than {MAX_ENTRIES} files of all kinds; is it the right folder?");
            reading.faults.push(Fault::of_file(FaultKind::TooMuch, folder.display().to_string(), message));
            reading.incomplete = true;
            return;
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return reading.fail(&folder.display().to_string(), &error),
        };
        let (path, name) = (entry.path(), entry.file_name());
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if depth < MAX_FOLDER_DEPTH {
                list(&path, depth + 1, entries, found, reading);
            } else {
                let message = format!("is more than {MAX_FOLDER_DEPTH} folders deep; not read");
                reading.faults.push(Fault::of_file(FaultKind::TooMuch, path.display().to_string(), message));
                reading.incomplete = true;
            }
        } else if is_manifest(&path)
            && (kind.is_file() || fs::metadata(&path).is_ok_and(|found| found.is_file()))
        {
            found.push(path);
        }
    }
}

/// By its name.
pub(crate) fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        ["yaml", "yml", "json"].iter().any(|known| known.eq_ignore_ascii_case(extension))
    })
}

fn read_file(path: &Path, name: &str, known: Option<Known>, bytes: &mut usize) -> io::Result<Known> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let stamp = Stamp::of(&metadata);
    *bytes = bytes.saturating_add(usize::try_from(stamp.length).unwrap_or(usize::MAX));
    if let Some(known) = known.as_ref().filter(|known| known.stamp == stamp && stamp.is_old()) {
        return Ok(known.clone());
    }
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut content)?;
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let hash = hasher.finish();
    if let Some(known) = known.filter(|known| known.hash == hash) {
        return Ok(Known { stamp, ..known });
    }
    Ok(Known { stamp, hash, file: Arc::new(read_content(name, content)) })
}

fn read_content(name: &str, content: Vec<u8>) -> FileReading {
    if content.len() > MAX_FILE_BYTES {
        let message = format!("is larger than {MAX_FILE_BYTES} bytes; split it");
        return broken(Fault::of_file(FaultKind::TooMuch, name, message));
    }
    match String::from_utf8(content) {
        Ok(text) => read_text(name, &text),
        Err(error) if mentions_us(&String::from_utf8_lossy(error.as_bytes())) => {
            broken(Fault::of_file(FaultKind::Syntax, name, "is not UTF-8"))
        }
        Err(_) => FileReading::default(),
    }
}

fn broken(fault: Fault) -> FileReading {
    FileReading { faults: vec![fault], incomplete: true, ..FileReading::default() }
}

/// Could the text hold a document of ours? A folder may hold templates and what not: they are not even parsed, and
/// nothing of them can end up in a message.
fn mentions_us(text: &str) -> bool {
    ["latchkey", "RemoteInstance", "VersionBlock"].iter().any(|word| text.contains(word))
}

fn read_text(name: &str, text: &str) -> FileReading {
    let text = text.trim_start_matches('\u{feff}');
    let mut reading = FileReading::default();
    if !mentions_us(text) {
        return reading;
    }
    let places = Places::new(Arc::new(SourceText::new(name, text)));
    let found = document::read(&places);
    for document in found.documents {
        reading.add(document, &places);
    }
    reading.incomplete |= !found.faults.is_empty();
    reading.faults.extend(found.faults.into_iter().map(without_secrets));
    reading
}

/// A file may hold a `Secret` beside our documents. A message shows lines around a mistake, so where such a document
/// is near, it shows none.
fn without_secrets(mut fault: Fault) -> Fault {
    let Some(place) = &fault.place else { return fault };
    if place.source.text().lines().any(|line| line.trim_end().ends_with("kind: Secret")) {
        fault.message = format!("line {}, column {}: {}", place.line(), place.column(), fault.message);
        fault.place = None;
    }
    fault
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
