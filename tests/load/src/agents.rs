//! Agents of named instances, as a proxy with a table knows them: what a block cuts, and who comes back after it.
//!
//! Their tokens are made here, with the installation's own keys, instead of by the session API: a proxy asks its table about
//! each as it does about any other. Whoever is cut asks again soon, as an agent does; whoever is refused waits first.

use std::{
    fs,
    io::{self, Write},
    mem,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use snitun::token::LatchkeyClaims;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::{interval, sleep},
};

use crate::{
    arguments::Agents,
    descriptors::raise_limit,
    fleet::{FleetError, read_keys},
    tunnel::{Credentials, IdleTunnel, TunnelError},
};

/// Whoever was cut asks again within so long, as far apart as agents are: they share no thread with each other.
const ASKS_WITHIN: Duration = Duration::from_secs(1);
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// A tunnel that ended sooner was as good as refused.
const HELD: Duration = Duration::from_secs(1);
/// What every instance's keys have, as long as nobody raises it.
const GENERATION: u64 = 1;

/// An agent, before it connects.
struct Agent {
    instance: String,
    credentials: Credentials,
}

/// What happened since it was told last, and what is so now.
#[derive(Default)]
struct Seen {
    up: usize,
    opened: u64,
    refused: u64,
    last_error: Option<String>,
    /// Whose tunnel ended.
    ended: Vec<Arc<str>>,
    changed: bool,
}

/// Shared by all agents, which are on one thread; the lock is never waited for.
#[derive(Default)]
struct Ledger(Mutex<Seen>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To write something into it.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        let mut seen = self.lock();
        seen.changed = true;
        seen
    }

    fn opened(&self) {
        let mut seen = self.seen();
        seen.up += 1;
        seen.opened += 1;
    }

    fn ended(&self, instance: &Arc<str>, error: &TunnelError) {
        let mut seen = self.seen();
        seen.up -= 1;
        seen.last_error = Some(error.to_string());
        seen.ended.push(Arc::clone(instance));
    }

    fn refused(&self, error: &TunnelError) {
        let mut seen = self.seen();
        seen.refused += 1;
        seen.last_error = Some(error.to_string());
    }

    /// A line for whoever watches, if there is something new.
    fn news(&self) -> Option<String> {
        let mut seen = self.lock();
        if !mem::take(&mut seen.changed) {
            return None;
        }
        let ended = mem::take(&mut seen.ended);
        let ended: Vec<&str> = ended.iter().map(|instance| &**instance).collect();
        let Seen { up, opened, refused, last_error, .. } = &*seen;
        Some(
            json!({"up": up, "opened": opened, "refused": refused, "lastError": last_error, "ended": ended})
                .to_string(),
        )
    }
}

/// Connects them all and keeps them until a signal.
pub(crate) fn run(options: &Agents) -> Result<(), FleetError> {
    let agents = read_agents(options)?;
    raise_limit(agents.len())?;
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(keep(options, agents))
}

fn read_agents(options: &Agents) -> Result<Vec<Agent>, FleetError> {
    let keys = read_keys(&options.fernet_keys)?;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let path = options.who.as_path();
    let text = fs::read_to_string(path)
        .map_err(|source| FleetError::AgentsFile { path: path.to_owned(), source })?;
    let mut agents = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (instance, hostname, claims) = read_line(path, at + 1, line)?;
        let credentials = Credentials::make(hostname, Some(claims), &keys, now)?;
        agents.push(Agent { instance, credentials });
    }
    Ok(agents)
}

fn read_line(path: &Path, line: usize, text: &str) -> Result<(String, String, LatchkeyClaims), FleetError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [instance, hostname, version, key] = words.as_slice() else {
        return Err(FleetError::Line { path: path.to_owned(), line });
    };
    let claims = LatchkeyClaims {
        instance: (*instance).to_owned(),
        generation: GENERATION,
        version: (*version).to_owned(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        key: (*key).to_owned(),
        session: format!("{line:032x}"),
    };
    Ok(((*instance).to_owned(), (*hostname).to_owned(), claims))
}

async fn keep(options: &Agents, agents: Vec<Agent>) -> Result<(), FleetError> {
    let ledger = Arc::new(Ledger::default());
    let pace = Duration::from_secs(1) / options.per_second.max(1);
    let ask_every = Duration::from_secs(options.ask_every.into());
    for (number, agent) in agents.into_iter().enumerate() {
        let ledger = Arc::clone(&ledger);
        let (server, source) = (options.server, options.source(number));
        let first = pace * u32::try_from(number).unwrap_or(u32::MAX);
        tokio::spawn(async move {
            sleep(first).await;
            let Agent { instance, credentials } = agent;
            let open = || IdleTunnel::open(server, source, &credentials);
            keep_one(&ledger, &instance.into(), ask_every, open).await;
        });
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut tick = interval(REPORT_EVERY);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = tick.tick() => {}
        }
        if let Some(news) = ledger.news() {
            match writeln!(io::stdout(), "{news}") {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                other => other?,
            }
        }
    }
}

/// One agent for ever.
async fn keep_one<O>(ledger: &Ledger, instance: &Arc<str>, ask_every: Duration, mut open: impl FnMut() -> O)
where
    O: Future<Output = Result<IdleTunnel, TunnelError>>,
{
    loop {
        match open().await {
            Ok(mut tunnel) => {
                ledger.opened();
                let since = Instant::now();
                let error = tunnel.hold().await;
                ledger.ended(instance, &error);
                if since.elapsed() >= HELD {
                    sleep(ASKS_WITHIN.mul_f64(rand::random_range(0.0..1.0))).await;
                    continue;
                }
            }
            Err(error) => ledger.refused(&error),
        }
        sleep(ask_every.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_an_instance_and_what_its_agent_claims() {
        let key = "ab".repeat(32);
        let text = format!("homes/lake lake.ui.test 2021.1.3 {key}");
        let (instance, hostname, claims) = read_line(Path::new("agents"), 7, &text).unwrap();
        assert_eq!((instance.as_str(), hostname.as_str()), ("homes/lake", "lake.ui.test"));
        assert_eq!((claims.instance, claims.version, claims.key), (instance, "2021.1.3".into(), key));
        let error = read_line(Path::new("agents"), 7, "homes/lake lake.ui.test").unwrap_err();
        assert!(error.to_string().starts_with("line 7 of agents"), "{error}");
    }

    #[test]
    fn an_end_is_told_once() {
        let ledger = Ledger::default();
        assert_eq!(ledger.news(), None);
        ledger.opened();
        ledger.ended(&"homes/lake".into(), &TunnelError::Slow);
        let told: serde_json::Value = serde_json::from_str(&ledger.news().unwrap()).unwrap();
        assert_eq!(
            (&told["up"], &told["opened"], &told["ended"]),
            (&json!(0), &json!(1), &json!(["homes/lake"]))
        );
        assert_eq!(ledger.news(), None);
        ledger.refused(&TunnelError::Slow);
        let told: serde_json::Value = serde_json::from_str(&ledger.news().unwrap()).unwrap();
        assert_eq!((&told["refused"], &told["ended"]), (&json!(1), &json!([])));
    }
}
