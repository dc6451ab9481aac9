//! A server that ends with the tests, however they end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::{ClusterError, KEEP_VARIABLE, is_set};

/// Lines of a log that an error shows.
const TAIL: usize = 15;

/// A running server. Dropping it ends it, by its own id.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    keep: bool,
    /// Dropped together with the process; its thread waits for that.
    _thread: mpsc::Sender<()>,
}

impl Process {
    /// Starts `program` with its output in `log`.
    pub fn start(
        name: &'static str,
        program: &Path,
        arguments: &[String],
        log: PathBuf,
    ) -> Result<Self, ClusterError> {
        Self::start_with(name, program, arguments, &[], log)
    }

    /// The same with more in its environment.
    pub fn start_with(
        name: &'static str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, PathBuf)],
        log: PathBuf,
    ) -> Result<Self, ClusterError> {
        let io = |what: &str| ClusterError::io(format!("{what} {name}"));
        let output = File::create(&log).map_err(io("the log of"))?;
        let keep = is_set(KEEP_VARIABLE);
        let mut command = command(program, keep);
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(output.try_clone().map_err(io("the log of"))?)
            .stdout(output);
        let (spawned, child) = mpsc::channel();
        let (alive, ended) = mpsc::channel::<()>();
        // "When the parent dies" means the thread that started it: so this one stays as long as the process.
        thread::spawn(move || {
            let _ = spawned.send(command.spawn());
            let _ = ended.recv();
        });
        let child =
            child.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())).map_err(io("starting"))?;
        Ok(Self { name, child, log, keep, _thread: alive })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) -> Result<(), ClusterError> {
        let io = || ClusterError::io(format!("ending {}", self.name));
        self.child.kill().map_err(io())?;
        self.child.wait().map_err(io()).map(drop)
    }

    /// Sends a signal, e.g. `TERM`.
    pub fn signal(&self, name: &str) -> Result<(), ClusterError> {
        let failed = || ClusterError::io(format!("sending {name} to {}", self.name));
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().map_err(failed())?;
        if sent.success() { Ok(()) } else { Err(failed()(std::io::ErrorKind::Other.into())) }
    }

    /// Has it ended? How?
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>, ClusterError> {
        self.child.try_wait().map_err(ClusterError::io(format!("asking for {}", self.name)))
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), ClusterError> {
        match self.child.try_wait().map_err(ClusterError::io(format!("asking for {}", self.name)))? {
            None => Ok(()),
            Some(status) => Err(self.error(format!("ended with {status}"))),
        }
    }

    /// An error that shows the end of its log.
    pub(crate) fn error(&self, why: String) -> ClusterError {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail =
            lines.iter().skip(lines.len().saturating_sub(TAIL)).copied().collect::<Vec<_>>().join("\n");
        ClusterError::Server { name: self.name, why, log: self.log.clone(), tail }
    }
}

/// Through `setpriv`, where it is installed: then the kernel ends the server even when the tests are killed.
fn command(program: &Path, keep: bool) -> Command {
    let on_path = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
    };
    if keep || !on_path("setpriv") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing of it is used again, so there is nothing to end in peace.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
