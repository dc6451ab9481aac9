//! A whole installation on one machine: operators, proxies and agents are the real programs, as processes. What stands in
//! for a kubelet is [`Installation::mount`]: it writes a Secret into a folder, as a volume would.

mod account;
mod installation;
mod instance;
mod programs;
mod setup;
mod visitor;

pub(crate) use account::{Account, Right, manifest, pairs, repository, restrict, rights};
pub(crate) use installation::{DOMAIN, Installation, accepted, get};
pub(crate) use instance::WebServer;
pub(crate) use programs::program;
pub(crate) use visitor::Visitor;

use std::time::{Duration, Instant};

use latchkey_cluster_tests::TestError;

/// How long anything may take on a machine under load.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Tries until it works, and says what was seen last when it never does.
pub(crate) async fn eventually<T>(
    what: &str,
    attempt: impl AsyncFnMut() -> Result<T, TestError>,
) -> Result<T, TestError> {
    within(PATIENCE, what, attempt).await
}

/// The same, with a time of one's own.
pub(crate) async fn within<T>(
    patience: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, TestError>,
) -> Result<T, TestError> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if began.elapsed() > patience => {
                return Err(format!("{what}: not within {} s: {error}", patience.as_secs()).into());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
