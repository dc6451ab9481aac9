//! Where the programs are.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::{ClusterError, TOOLS_VARIABLE};

/// The folder with etcd, kube-apiserver and kubectl; built first where that was never done.
pub(crate) async fn folder() -> Result<PathBuf, ClusterError> {
    let told = std::env::var_os(TOOLS_VARIABLE).filter(|folder| !folder.is_empty());
    let folder = match told {
        Some(folder) => PathBuf::from(folder),
        None => built().await?,
    };
    match ["etcd", "kube-apiserver", "kubectl"].iter().find(|program| !folder.join(program).is_file()) {
        None => Ok(folder),
        Some(program) => Err(ClusterError::Tools(format!("no {program} in {}", folder.display()))),
    }
}

async fn built() -> Result<PathBuf, ClusterError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build");
    // Its progress goes where the tests' own output goes.
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(|error| ClusterError::Tools(format!("{}: {error}", script.display())))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = said.lines().last().unwrap_or_default().to_owned();
    if output.status.success() { Ok(PathBuf::from(last)) } else { Err(ClusterError::Tools(last)) }
}
