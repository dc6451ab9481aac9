//! Probes over HTTP, as a container's spec says.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Probe};
use latchkey_cluster_tests::TestError;

use super::container::port;
use crate::support::get;

/// Kubernetes' defaults.
const PERIOD: i32 = 10;
const TIMEOUT: i32 = 1;
const FAILURES: i32 = 3;

/// A probe, and what it heard.
#[derive(Debug)]
pub(super) struct Prober {
    address: SocketAddr,
    path: String,
    every: Duration,
    timeout: Duration,
    failures_needed: i32,
    successes_needed: i32,
    next: Instant,
    failures: i32,
    successes: i32,
}

/// What many answers together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
}

impl Prober {
    /// Of a container at an address.
    pub(super) fn new(container: &Container, probe: &Probe, address: IpAddr) -> Result<Self, TestError> {
        let asked = probe.http_get.as_ref().ok_or("a probe that is not HTTP")?;
        let seconds = |seconds: Option<i32>, default: i32| {
            Duration::from_secs(u64::try_from(seconds.unwrap_or(default)).unwrap_or_default())
        };
        Ok(Self {
            address: SocketAddr::new(address, port(container, &asked.port)?),
            path: asked.path.clone().unwrap_or_else(|| "/".to_owned()),
            every: seconds(probe.period_seconds, PERIOD),
            timeout: seconds(probe.timeout_seconds, TIMEOUT),
            failures_needed: probe.failure_threshold.unwrap_or(FAILURES),
            successes_needed: probe.success_threshold.unwrap_or(1),
            next: Instant::now() + seconds(probe.initial_delay_seconds, 0),
            failures: 0,
            successes: 0,
        })
    }

    /// Asks, when it is time; says something when enough answers in a row say the same.
    pub(super) async fn look(&mut self) -> Option<Verdict> {
        if Instant::now() < self.next {
            return None;
        }
        let answer = tokio::time::timeout(self.timeout, get(self.address, &self.path)).await;
        self.next = Instant::now() + self.every;
        if matches!(answer, Ok(Ok((200..=399, _)))) {
            (self.successes, self.failures) = (self.successes + 1, 0);
        } else {
            (self.successes, self.failures) = (0, self.failures + 1);
        }
        if self.successes >= self.successes_needed {
            Some(Verdict::Good)
        } else if self.failures >= self.failures_needed {
            Some(Verdict::Bad)
        } else {
            None
        }
    }
}
