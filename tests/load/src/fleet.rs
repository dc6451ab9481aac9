//! Many idle tunnels and what became of them.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use latchkey_agent::reconnect::{Action, Outcome, Reconnect};
use serde_json::json;
use snitun::token::{FernetKeys, KeyError, TokenError};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::{interval, sleep},
};

use crate::{
    arguments::IdleTunnels,
    descriptors::{DescriptorError, raise_limit},
    memory,
    tunnel::{Credentials, IdleTunnel, TunnelError},
};

const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Why the fleet could not start or report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    #[error("cannot read the Fernet keys in {}", path.display())]
    KeyFile { path: PathBuf, source: io::Error },
    #[error("{} holds no usable Fernet keys", path.display())]
    Keys { path: PathBuf, source: KeyError },
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    #[error("line {line} of {} is not `NAMESPACE/NAME HOSTNAME VERSION KEY`", path.display())]
    Line { path: PathBuf, line: usize },
    #[error("cannot read the agents in {}", path.display())]
    AgentsFile { path: PathBuf, source: io::Error },
    #[error("cannot make a token")]
    Token(#[from] TokenError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Counts of the whole fleet.
#[derive(Default)]
struct Counts {
    up: AtomicUsize,
    opened: AtomicUsize,
    failed: AtomicUsize,
    lost: AtomicUsize,
    last_error: Mutex<Option<String>>,
}

impl Counts {
    fn remember(&self, error: &TunnelError) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }

    fn snapshot(&self) -> [usize; 4] {
        [&self.up, &self.opened, &self.failed, &self.lost].map(|count| count.load(Relaxed))
    }
}

/// Opens the tunnels and keeps them until a signal.
pub(crate) fn run(options: &IdleTunnels) -> Result<(), FleetError> {
    raise_limit(options.count)?;
    let keys = read_keys(&options.fernet_keys)?;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let credentials = (0..options.count)
        .map(|number| Credentials::make(format!("inst{number}.{}", options.domain), None, &keys, now))
        .collect::<Result<Vec<_>, _>>()?;
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(keep(options, credentials))
}

/// The keys that make tokens.
pub(crate) fn read_keys(path: &Path) -> Result<FernetKeys, FleetError> {
    let text =
        fs::read_to_string(path).map_err(|source| FleetError::KeyFile { path: path.to_owned(), source })?;
    FernetKeys::from_lines(&text).map_err(|source| FleetError::Keys { path: path.to_owned(), source })
}

async fn keep(options: &IdleTunnels, credentials: Vec<Credentials>) -> Result<(), FleetError> {
    let started = Instant::now();
    let counts = Arc::new(Counts::default());
    let pace = Duration::from_secs(1) / options.per_second.max(1);
    for (number, credentials) in credentials.into_iter().enumerate() {
        let counts = Arc::clone(&counts);
        let (server, source) = (options.server, options.source(number));
        let first = pace * u32::try_from(number).unwrap_or(u32::MAX);
        tokio::spawn(async move {
            sleep(first).await;
            keep_one(&counts, started, || IdleTunnel::open(server, source, &credentials)).await;
        });
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut tick = interval(REPORT_EVERY);
    let mut last = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = tick.tick() => {}
        }
        let now = counts.snapshot();
        if last.replace(now) != Some(now) && !report(&counts, options.proxy_pid)? {
            return Ok(());
        }
    }
}

/// One tunnel for ever, with the agent's own reconnect policy.
async fn keep_one<O>(counts: &Counts, started: Instant, mut open: impl FnMut() -> O)
where
    O: Future<Output = Result<IdleTunnel, TunnelError>>,
{
    let mut policy = Reconnect::new(started.elapsed());
    loop {
        let outcome = match open().await {
            Ok(mut tunnel) => {
                policy.after(Outcome::Connected, started.elapsed(), rand::random());
                counts.opened.fetch_add(1, Relaxed);
                counts.up.fetch_add(1, Relaxed);
                counts.remember(&tunnel.hold().await);
                counts.up.fetch_sub(1, Relaxed);
                counts.lost.fetch_add(1, Relaxed);
                Outcome::Lost
            }
            Err(error) => {
                counts.remember(&error);
                counts.failed.fetch_add(1, Relaxed);
                Outcome::ConnectFailed
            }
        };
        match policy.after(outcome, started.elapsed(), rand::random()) {
            Action::In(time) => sleep(time).await,
            Action::Now | Action::Stay => {}
        }
        policy.attempt();
    }
}

/// False when nobody reads any more.
fn report(counts: &Counts, proxy: Option<u32>) -> Result<bool, FleetError> {
    let [up, opened, failed, lost] = counts.snapshot();
    let last_error = counts.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Gone while the proxy is away: no figure then.
    let rss_kib = proxy.and_then(|pid| memory::rss_kib(pid).ok());
    let line = json!({
        "pid": process::id(), "up": up, "opened": opened, "failed": failed, "lost": lost,
        "lastError": last_error, "proxyRssKib": rss_kib,
    });
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}
