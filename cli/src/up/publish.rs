//! Plans become tables that the proxy in this process serves by.

use std::sync::Arc;

use latchkey_proxy::routes::Live;
use planner::{Applied, Plan};
use route_table::{HostName, TableError};

/// Publishes plans.
#[derive(Debug)]
pub struct Publisher {
    live: Arc<Live>,
    published: Option<(u64, HostName)>,
}

impl Publisher {
    /// To that proxy's table.
    pub fn new(live: Arc<Live>) -> Self {
        Self { live, published: None }
    }

    /// Puts the plan's routes in force, if they are not yet. An error (more routes than a table can have)
    /// leaves the last good table in force.
    pub fn publish(&mut self, plan: &Plan, domain: &HostName) -> Result<bool, TableError> {
        let next = (plan.revision, domain.clone());
        if self.published.as_ref() == Some(&next) {
            return Ok(false);
        }
        self.live.publish(plan.table(domain)?);
        self.published = Some(next);
        Ok(true)
    }

    /// What is in force. One process, one proxy: what was published is applied.
    pub fn applied(&self) -> Applied {
        let revision = self.published.as_ref().map(|(revision, _)| *revision);
        Applied { ready_proxies: 1, revision }
    }
}
