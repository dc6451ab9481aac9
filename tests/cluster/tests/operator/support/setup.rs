//! An installation that is up, and what its proxies say of themselves.

use latchkey_cluster_tests::{TestError, TestNamespace};

use super::{Installation, get};

impl<'a, 'b> Installation<'a, 'b> {
    /// So many operators and proxies, all ready.
    pub(crate) async fn with(
        namespace: &'a TestNamespace<'b>,
        operators: usize,
        proxies: usize,
    ) -> Result<Self, TestError> {
        let mut here = Self::begin(namespace).await?;
        here.start(operators, proxies).await?;
        Ok(here)
    }

    /// Starts so many operators and proxies, and waits until they are ready. The first operator leads.
    pub(crate) async fn start(&mut self, operators: usize, proxies: usize) -> Result<(), TestError> {
        for which in 0..operators {
            self.start_operator(which)?;
            self.operator_ready(which).await?;
        }
        for which in 0..proxies {
            self.start_proxy(which).await?;
        }
        for which in 0..proxies {
            self.proxy_ready(which).await?;
        }
        Ok(())
    }

    /// A number among a proxy's metrics.
    pub(crate) async fn metric(&self, proxy: usize, name: &str) -> Result<u64, TestError> {
        let (_, metrics) = get(self.proxies[&proxy].admin, "/metrics").await?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| format!("no {name} among the metrics"))?.parse()?)
    }

    /// The revision that a proxy has in force.
    pub(crate) async fn revision(&self, proxy: usize) -> Result<u64, TestError> {
        self.metric(proxy, "latchkey_proxy_route_table_revision").await
    }

    /// The same with the term of the leader it came from: a new one counts revisions from the start.
    pub(crate) async fn position(&self, proxy: usize) -> Result<(u64, u64), TestError> {
        Ok((self.metric(proxy, "latchkey_proxy_route_table_term").await?, self.revision(proxy).await?))
    }

    /// Starts an operator that has ended, as a kubelet does. Says whether it had.
    pub(crate) fn restart_if_ended(&mut self, which: usize) -> Result<bool, TestError> {
        let ended = self.operators.get_mut(&which).ok_or("no such operator")?.process.ended()?.is_some();
        if ended {
            self.start_operator(which)?;
        }
        Ok(ended)
    }
}
