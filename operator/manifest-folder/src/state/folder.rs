//! A folder that only its owner can read, with files that are written whole.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::Builder;

/// Largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Anything that lets others in.
const OTHERS: u32 = 0o077;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refuses.
    #[error("{doing} {}: {source} (--state DIR names another folder)", path.display())]
    System {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others can read or write it.
    #[error("{} has mode {mode:03o}: others could take the secrets in it; `chmod {right:03o} {}` and look who had access", path.display(), path.display())]
    Open {
        /// What.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        right: u32,
    },
    /// It is somebody else's.
    #[error("{} belongs to user {owner}, not to the user this runs as ({user})", path.display())]
    Foreign {
        /// What.
        path: PathBuf,
        /// Whose.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Another process writes it.
    #[error("{} is in use by another process; two would undo each other's work", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A file makes no sense.
    #[error("{} makes no sense: {problem}; {help}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        help: &'static str,
    },
}

/// The folder.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    /// Held while it is written; given back by the system when the process ends, however it ends.
    lock: Option<File>,
}

impl StateFolder {
    /// The folder at `path`, made where there is none, for the one process that may write it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
        made.map_err(|source| system("cannot make", path, source))?;
        let mut folder = Self::existing(path)?;
        let lock = folder.path.join("lock");
        let open = File::options().create(true).truncate(false).write(true).open(&lock);
        let file = open.map_err(|source| system("cannot open", &lock, source))?;
        let closed = file.set_permissions(Permissions::from_mode(FILE_MODE));
        closed.map_err(|source| system("cannot protect", &lock, source))?;
        match file.try_lock() {
            Ok(()) => folder.lock = Some(file),
            Err(fs::TryLockError::WouldBlock) => return Err(StateError::Busy { path: folder.path }),
            Err(fs::TryLockError::Error(source)) => return Err(system("cannot lock", &lock, source)),
        }
        Ok(folder)
    }

    /// The folder at `path`, to be read alone; another process may be writing it.
    pub fn existing(path: &Path) -> Result<Self, StateError> {
        let metadata = fs::metadata(path).map_err(|source| system("cannot read", path, source))?;
        if !metadata.is_dir() {
            let source = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(system("cannot use", path, source));
        }
        private(path, &metadata, FOLDER_MODE)?;
        Ok(Self { path: path.to_owned(), lock: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's content; `None` where there is no such file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(system("cannot read", &path, source)),
        };
        let metadata = file.metadata().map_err(|source| system("cannot read", &path, source))?;
        private(&path, &metadata, FILE_MODE)?;
        let mut content = Vec::new();
        let read = file.take(MAX_BYTES).read_to_end(&mut content);
        read.map_err(|source| system("cannot read", &path, source))?;
        Ok(Some(content))
    }

    /// Writes a file beside its place and moves it there: a crash leaves the old one or the new one.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        let write = || -> io::Result<()> {
            let permissions = Permissions::from_mode(FILE_MODE);
            let mut file = Builder::new().prefix(".new-").permissions(permissions).tempfile_in(&self.path)?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| system("cannot write", &path, source))
    }

    /// Reads a file of JSON.
    pub(crate) fn read_json<T: DeserializeOwned>(
        &self,
        name: &str,
        help: &'static str,
    ) -> Result<Option<T>, StateError> {
        let Some(content) = self.read(name)? else { return Ok(None) };
        let read = serde_json::from_slice(&content);
        read.map(Some).map_err(|error| self.damaged(name, error.to_string(), help))
    }

    /// Writes a file of JSON.
    pub(crate) fn write_json(&self, name: &str, content: &impl Serialize) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(content)
            .map_err(|error| system("cannot write", &self.path.join(name), error.into()))?;
        self.write(name, &text)
    }

    /// A file of it makes no sense.
    pub(crate) fn damaged(&self, name: &str, problem: String, help: &'static str) -> StateError {
        StateError::Damaged { path: self.path.join(name), problem, help }
    }
}

fn system(doing: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::System { doing, path: path.to_owned(), source }
}

fn private(path: &Path, metadata: &Metadata, right: u32) -> Result<(), StateError> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    // Root's own tools look at other users' state; whoever is root can do so anyway.
    if owner != user && user != 0 {
        return Err(StateError::Foreign { path: path.to_owned(), owner, user });
    }
    let mode = metadata.mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(StateError::Open { path: path.to_owned(), mode, right });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn files_are_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state");
        let folder = StateFolder::open(&path).unwrap();
        assert_eq!(folder.read("a").unwrap(), None);
        folder.write("a", b"one").unwrap();
        folder.write("a", b"two").unwrap();
        assert_eq!(folder.read("a").unwrap().unwrap(), b"two");
        assert_eq!((mode(&path), mode(&path.join("a")), mode(&path.join("lock"))), (0o700, 0o600, 0o600));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "nothing is left beside them");
    }

    #[test]
    fn what_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        StateFolder::open(&path).unwrap().write("a", b"one").unwrap();
        fs::set_permissions(path.join("a"), Permissions::from_mode(0o640)).unwrap();
        let told = StateFolder::open(&path).unwrap().read("a").unwrap_err().to_string();
        assert!(told.contains("640") && told.contains("chmod 600"), "{told}");
        for open in [0o750, 0o705, 0o770] {
            fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
            assert!(matches!(StateFolder::open(&path), Err(StateError::Open { .. })), "{open:o}");
        }
    }

    #[test]
    fn one_process_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateFolder::open(&path).unwrap();
        assert!(matches!(StateFolder::open(&path), Err(StateError::Busy { .. })));
        assert!(StateFolder::existing(&path).is_ok());
        drop(first);
        assert!(StateFolder::open(&path).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_where() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let told = StateFolder::open(&dir.path().join("file/state")).unwrap_err().to_string();
        assert!(told.contains("file/state") && told.contains("--state"), "{told}");
        assert!(StateFolder::existing(&dir.path().join("none")).is_err());
    }
}
