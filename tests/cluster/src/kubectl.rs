//! `kubectl`, as people use it.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::{ClusterError, ControlPlane};

/// What a command printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// Did it succeed?
    pub success: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl ControlPlane {
    /// Runs `kubectl` against this control plane.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Output, ClusterError> {
        self.kubectl_with_input(arguments, "").await
    }

    /// Runs a line of a shell in a folder; `kubectl` in it is ours.
    pub async fn shell(&self, line: &str, folder: &Path) -> Result<Output, ClusterError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.tools().to_owned()].into_iter().chain(std::env::split_paths(&path));
        let path = std::env::join_paths(folders).unwrap_or_default();
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(folder)
            .env("PATH", path)
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.folder().join("kubectl-cache"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(ClusterError::io(line))?;
        Ok(Output::of(&output))
    }

    /// The same with something to read, for `-f -`.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<Output, ClusterError> {
        let io = |error| ClusterError::Io { what: format!("kubectl {}", arguments.join(" ")), source: error };
        let mut child = Command::new(self.tool("kubectl"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.folder().join("kubectl-cache"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(io)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that reads nothing may be gone already.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(io)?;
        Ok(Output::of(&output))
    }
}

impl Output {
    fn of(output: &std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Self { success: output.status.success(), stdout, stderr }
    }
}
