//! What it costs: processor time and memory of every process.

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::jiff;

use latchkey_cluster_tests::TestError;

use crate::support::{Installation, PATIENCE};

use super::agents::Agents;

/// What the kernel counts in: `USER_HZ`, which programs see as 100 whatever the kernel's own clock is.
const TICKS_PER_SECOND: u64 = 100;

/// How long a busy machine is waited for.
const RESTS_WITHIN: Duration = Duration::from_mins(2);

/// One process.
#[derive(Debug, Clone)]
struct Figure {
    name: String,
    cpu: Duration,
    kib: u64,
    most_kib: u64,
}

/// All of them.
#[derive(Debug, Clone)]
pub(super) struct Figures(Vec<Figure>);

impl Figures {
    /// Those of now.
    pub(super) fn of(here: &Installation<'_, '_>, agents: &[Agents]) -> Self {
        let operators = here.operators.iter().map(|(which, it)| (format!("operator {which}"), &it.process));
        let proxies = here.proxies.iter().map(|(which, it)| (format!("proxy {which}"), &it.process));
        let agents = agents.iter().enumerate().map(|(which, it)| (format!("agents {which}"), &it.process));
        let all = operators.chain(proxies).chain(agents);
        Self(all.filter_map(|(name, process)| Figure::of(name, process.id())).collect())
    }

    /// The processor time since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut all = self.clone();
        for (figure, before) in all.0.iter_mut().zip(&before.0) {
            figure.cpu = figure.cpu.saturating_sub(before.cpu);
        }
        all
    }

    pub(super) fn print(&self, when: &str) {
        let told = self.0.iter().map(|Figure { name, cpu, kib, most_kib }| {
            format!("{name} {:.2} s {} MiB (most {})", cpu.as_secs_f64(), kib / 1024, most_kib / 1024)
        });
        print(&format!("{when}: {}", told.collect::<Vec<_>>().join("; ")));
    }
}

impl Figure {
    /// Nothing of a process that is gone.
    fn of(name: String, id: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Behind the name, which may hold anything: user and system time are the 12th and 13th.
        let (_, numbers) = stat.rsplit_once(')')?;
        let ticks = numbers.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
        let cpu = Duration::from_millis(ticks.sum::<u64>() * 1_000 / TICKS_PER_SECOND);
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let kib = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        Some(Self { name, cpu, kib: kib("VmRSS:")?, most_kib: kib("VmHWM:")? })
    }
}

/// Waits until nobody works any more: an API server that has taken many statuses goes on for seconds, on the cores that
/// everything here shares, with what it left behind.
pub(super) async fn rest() -> Result<(), TestError> {
    let began = Instant::now();
    let mut calm = 0;
    while calm < 4 {
        if began.elapsed() > RESTS_WITHIN {
            return Err(format!("somebody works still after {RESTS_WITHIN:?}").into());
        }
        let before = machine()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = machine()?;
        let idles = (now.idle - before.idle) * 5 > (now.all - before.all) * 4;
        calm = if idles { calm + 1 } else { 0 };
    }
    Ok(())
}

/// What all cores did, in the kernel's ticks.
struct Machine {
    idle: u64,
    all: u64,
}

fn machine() -> Result<Machine, TestError> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let cores = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks = cores.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    // User, nice, system, idle, waiting for disks, and so on.
    let idle = ticks.get(3..5).ok_or("no idle time in /proc/stat")?;
    Ok(Machine { idle: idle.iter().sum(), all: ticks.iter().sum() })
}

/// How long after the answer to a write, which began a little before, each proxy had cut its part of so many tunnels, by its
/// own log. Agents notice later: they have one thread for thousands.
pub(super) async fn cut(
    here: &Installation<'_, '_>,
    count: u64,
    began: SystemTime,
    answered: SystemTime,
) -> Result<Vec<Duration>, TestError> {
    let (began, answered) = (jiff::Timestamp::try_from(began)?, jiff::Timestamp::try_from(answered)?);
    let waiting = Instant::now();
    loop {
        let logs: Vec<String> = here.proxies.values().map(|proxy| proxy.process.said()).collect();
        let lines = logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains(" tunnels cut "));
        let told = lines.filter_map(|line| {
            let at: jiff::Timestamp = line.split_whitespace().next()?.parse().ok()?;
            let cut = line.split_once(" tunnels=")?.1.split_whitespace().next()?.parse::<u64>().ok()?;
            // What was cut before the answer came was cut in no time.
            (at >= began).then(|| (Duration::try_from(at.duration_since(answered)).unwrap_or_default(), cut))
        });
        let (times, cut): (Vec<Duration>, Vec<u64>) = told.unzip();
        let cut: u64 = cut.iter().sum();
        if cut >= count {
            return Ok(times);
        }
        if waiting.elapsed() > PATIENCE {
            return Err(format!("{cut} of {count} are cut").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[expect(clippy::print_stderr, reason = "figures for whoever runs it")]
pub(super) fn print(text: &str) {
    eprintln!("fleet::blocks_cut_and_let_back: {text}");
}
