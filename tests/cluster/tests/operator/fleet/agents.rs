//! Simulated agents: processes that hold thousands of tunnels each, and tell what becomes of them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::Method;
use latchkey_cluster_tests::{Process, TestError};
use serde_json::Value;

use crate::support::{DOMAIN, Installation, accepted, program};

use super::members::Member;

/// Loopback addresses they connect from, since an address has only so many ports.
const SOURCES: usize = 200;
/// Of all that were refused, so many ask again in a second.
const ASKS_PER_SECOND: usize = 500;

/// Agents of one proxy.
pub(super) struct Agents {
    pub(super) process: Process,
    log: PathBuf,
    /// How much of the log was read.
    read: u64,
    /// A line that is not whole yet.
    rest: String,
    /// Tunnels that are up.
    pub(super) up: u64,
    /// Asks that were refused so far.
    pub(super) refused: u64,
    /// Whose tunnel ended.
    pub(super) ended: Vec<String>,
    pub(super) last_error: String,
}

/// How long those who were refused wait.
pub(super) fn ask_every(size: usize) -> Duration {
    Duration::from_secs((size / ASKS_PER_SECOND).max(2) as u64)
}

impl Agents {
    /// Starts those of one proxy.
    pub(super) async fn start(
        here: &mut Installation<'_, '_>,
        proxy: usize,
        members: impl Iterator<Item = &Member>,
        size: usize,
    ) -> Result<Self, TestError> {
        // A file of their own: one that is written anew has nothing in it for a moment.
        let keys = here.path(&format!("fernet-keys-{proxy}"));
        std::fs::write(&keys, fernet_keys(here).await?)?;
        let mut text = String::new();
        for member in members {
            let (id, version) = (here.id(&member.name), member.group.version());
            writeln!(text, "{id} {}.{DOMAIN} {version} {}", member.name, member.key())?;
        }
        let agents = here.path(&format!("agents-{proxy}"));
        std::fs::write(&agents, text)?;
        let sources: Vec<String> =
            (0..SOURCES).map(|number| format!("127.{}.1.{}", proxy + 1, number + 1)).collect();
        // They are the world outside: what they do must not take time from the proxies that they watch.
        let arguments = [
            "-n10".to_owned(),
            program("latchkey-load")?.display().to_string(),
            "agents".to_owned(),
            format!("--server={}", here.proxies[&proxy].public),
            format!("--fernet-keys={}", keys.display()),
            format!("--agents={}", agents.display()),
            format!("--sources={}", sources.join(",")),
            "--per-second=500".to_owned(),
            format!("--ask-every={}", ask_every(size).as_secs()),
        ];
        let log = here.path(&format!("simulated-{proxy}.log"));
        let process = Process::start("agents", Path::new("nice"), &arguments, log.clone())?;
        Ok(Self {
            process,
            log,
            read: 0,
            rest: String::new(),
            up: 0,
            refused: 0,
            ended: Vec::new(),
            last_error: String::new(),
        })
    }

    /// Reads what they told since it was read last.
    pub(super) fn look(&mut self) -> Result<(), TestError> {
        let mut log = File::open(&self.log)?;
        log.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        self.read += log.read_to_end(&mut bytes)? as u64;
        self.rest.push_str(std::str::from_utf8(&bytes)?);
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            let told: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
            self.up = told["up"].as_u64().ok_or("no `up`")?;
            self.refused = told["refused"].as_u64().ok_or("no `refused`")?;
            told["lastError"].as_str().unwrap_or_default().clone_into(&mut self.last_error);
            for end in told["ended"].as_array().into_iter().flatten() {
                self.ended.push(end.as_str().ok_or("no id")?.to_owned());
            }
        }
        if let Some(status) = self.process.ended()? {
            return Err(format!("simulated agents ended with {status}: {}", self.process.said()).into());
        }
        Ok(())
    }

    /// Has them wait until nobody else on this machine wants to do anything, or not any more.
    pub(super) fn step_aside(&self, aside: bool) -> Result<(), TestError> {
        let class = if aside { "--idle" } else { "--other" };
        let id = self.process.id().to_string();
        let status = std::process::Command::new("chrt").args([class, "--pid", "0", &id]).status()?;
        if status.success() { Ok(()) } else { Err(format!("chrt {class}: {status}").into()) }
    }
}

/// The installation's own, one a line.
async fn fernet_keys(here: &Installation<'_, '_>) -> Result<String, TestError> {
    let path = format!("/api/v1/namespaces/{}/secrets/{}", here.names.namespace, here.names.token_keys());
    let secret = accepted(here.control_plane().exchange(Method::GET, &path, &Value::Null).await?)?;
    let key = |name: &str| -> Result<String, TestError> {
        Ok(URL_SAFE.encode(STANDARD.decode(secret["data"][name].as_str().ok_or("a key is missing")?)?))
    };
    Ok(format!("{}\n{}\n", key("newest")?, key("older")?))
}
