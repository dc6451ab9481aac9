//! Files that must survive a restart and that nobody else may read: written whole, or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source} (--state DIR names a folder this user can write, kept over restarts)", path.display())]
pub struct StateError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The folder named by `--state`.
#[derive(Debug, Clone)]
pub struct StateFolder {
    path: PathBuf,
}

impl StateFolder {
    /// The folder at `path`, made (mode 0700) when there is none.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| StateError { doing: "cannot make", path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned() })
    }

    /// The folder at `path`, to be read alone: it need not exist.
    pub fn existing(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where the file of that name is.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file's content; `None` when there is no such file.
    pub fn read(&self, name: &str) -> Result<Option<String>, StateError> {
        let path = self.path_of(name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                warn_if_others_can_read(&path);
                Ok(Some(text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError { doing: "cannot read", path, source }),
        }
    }

    /// Writes the file (mode 0600) beside its place and moves it there: a crash leaves the old one or the new one.
    pub fn write(&self, name: &str, content: &str) -> Result<(), StateError> {
        let path = self.path_of(name);
        let beside = self.path_of(&format!(".{name}.new"));
        let write = || -> io::Result<()> {
            let _ = fs::remove_file(&beside);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| StateError { doing: "cannot write", path, source })
    }
}

fn warn_if_others_can_read(path: &Path) {
    let open = fs::metadata(path).is_ok_and(|facts| facts.mode() & 0o007 != 0);
    if open {
        tracing::warn!(file = %path.display(), "others can read this file: chmod 600 it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let folder = StateFolder::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(folder.read("a").unwrap().is_none());
        folder.write("a", "one").unwrap();
        folder.write("a", "two").unwrap();
        assert_eq!(folder.read("a").unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(folder.path_of("a")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = StateFolder::open(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("file/state") && error.contains("--state"), "{error}");
    }
}
