//! The agent's binary as a process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

use serde_json::json;
use tempfile::TempDir;

use super::{Proxy, process::Process};

/// An agent's folder: its key, and what it writes.
#[derive(Debug)]
pub struct State(TempDir);

impl State {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One, and the key that is in it. A test that talks meanwhile asks for the key first: the agent may have to be built.
    pub fn with_key() -> (Self, [String; 1]) {
        let state = Self::new();
        let key = state.key();
        (state, [key])
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn folder(&self) -> String {
        self.path("state").to_str().unwrap().to_owned()
    }

    /// What goes into `agentKeys`.
    pub fn key(&self) -> String {
        let output = Command::new(binary()).args(["key", "--state", &self.folder()]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// A running agent.
#[derive(Debug)]
pub struct RealAgent {
    pub process: Process,
}

impl RealAgent {
    /// Joins with a bundle for the proxy's session API.
    pub fn join(proxy: &Proxy, state: &State, args: &[&str]) -> Self {
        Self::join_with(proxy, state, None, args)
    }

    /// The same with a token that lets its key in.
    pub fn join_with(proxy: &Proxy, state: &State, token: Option<&str>, args: &[&str]) -> Self {
        let bundle = state.path("bundle.json");
        let ca = fs::read_to_string(proxy.path("api-tls/ca.crt")).unwrap();
        let server = proxy.address.to_string();
        let mut text = json!({"server": server, "serverName": "connect.ui.example.com", "ca": ca});
        if let Some(token) = token {
            text["joinToken"] = token.into();
        }
        fs::write(&bundle, text.to_string()).unwrap();
        let mut all =
            ["--join", bundle.to_str().unwrap(), "--state", &state.folder()].map(str::to_owned).to_vec();
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        Self { process: Process::start(binary(), &all, state.path("agent.log")) }
    }
}

/// The agent beside the proxy. It is built here when nobody has, or when its sources are newer.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let binary = Path::new(env!("CARGO_BIN_EXE_latchkey-proxy")).with_file_name("latchkey-agent");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let built = fs::metadata(&binary).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        if ["agent/src", "libs/snitun/src", "libs/byte-relay/src"]
            .iter()
            .any(|dir| newest(&root.join(dir)) > built)
        {
            build(root, &binary);
        }
        binary
    })
}

fn build(root: &Path, binary: &Path) {
    let folder = binary.parent().unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "latchkey-agent", "--profile", profile, "--target-dir"])
        .arg(folder.parent().unwrap())
        .current_dir(root)
        .status()
        .unwrap();
    assert!(status.success(), "the agent could not be built");
}

/// When the newest file in a folder was changed.
fn newest(folder: &Path) -> SystemTime {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { newest(&path) } else { fs::metadata(&path).unwrap().modified().unwrap() }
        })
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
