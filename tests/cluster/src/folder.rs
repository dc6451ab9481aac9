//! The folder of a run: certificates, etcd's data, logs.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{ClusterError, KEEP_VARIABLE, is_set};

const PREFIX: &str = "latchkey-cluster-";
/// In it stands whose folder it is.
const OWNER: &str = "owner.pid";

/// A folder for this run, which goes with it unless it shall be kept.
#[derive(Debug)]
pub(crate) enum Folder {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Folder {
    /// Makes one, and takes away those of runs that were killed.
    pub(crate) fn make() -> Result<Self, ClusterError> {
        remove_orphans();
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir()
            .map_err(ClusterError::io("a temporary folder"))?;
        if is_set(KEEP_VARIABLE) {
            let path = folder.keep();
            announce(&format!(
                "{KEEP_VARIABLE} is set: {} stays, with a kubeconfig and logs",
                path.display()
            ));
            return Ok(Self::Kept(path));
        }
        std::fs::write(folder.path().join(OWNER), std::process::id().to_string())
            .map_err(ClusterError::io("the owner of the temporary folder"))?;
        Ok(Self::Temporary(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }
}

/// Whoever is killed cleans nothing up. What cannot be removed is somebody else's.
fn remove_orphans() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let owner = std::fs::read_to_string(entry.path().join(OWNER));
        let is_gone = owner.is_ok_and(|owner| {
            let process = Path::new("/proc").join(owner.trim());
            owner.trim().parse::<u32>().is_ok() && !process.exists() && Path::new("/proc/self").exists()
        });
        if is_ours && is_gone {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[expect(clippy::print_stderr, reason = "whoever keeps a control plane must find it")]
fn announce(text: &str) {
    eprintln!("{text}");
}
