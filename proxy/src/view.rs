//! What the admin listener shows.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

#[cfg(feature = "operator")]
use crate::operator_link::LinkView;
use crate::{
    admin::{AdminView, Condition, Readiness, TunnelRow},
    clock,
    door::Door,
    metrics::Metrics,
    routes::FileState,
    tunnels::registry::{Instance, Live},
};

/// The proxy, as the admin listener sees it.
#[derive(Debug)]
pub struct View {
    door: Arc<Door>,
    routes: Option<watch::Receiver<FileState>>,
    #[cfg(feature = "operator")]
    operator: Option<LinkView>,
}

impl View {
    /// A proxy whose tables come from whoever embeds it, or that has none.
    pub fn new(door: Arc<Door>) -> Self {
        Self {
            door,
            routes: None,
            #[cfg(feature = "operator")]
            operator: None,
        }
    }

    /// With the routes file.
    #[must_use]
    pub fn with_file(self, routes: watch::Receiver<FileState>) -> Self {
        Self { routes: Some(routes), ..self }
    }

    /// With the link to the operator.
    #[cfg(feature = "operator")]
    #[must_use]
    pub fn with_operator(self, operator: LinkView) -> Self {
        Self { operator: Some(operator), ..self }
    }
}

impl AdminView for View {
    fn ready(&self) -> Readiness {
        let keys = self.door.keys.status();
        let mut conditions = vec![
            Condition::new("draining", !self.door.is_draining()),
            // The last good keys go on serving, so an unreadable file makes nobody unready.
            Condition::new("keys", keys.keys > 0).with_message(keys.error.unwrap_or_default()),
        ];
        if let Some(routes) = &self.routes {
            let state = routes.borrow();
            let message = state.last_error.as_ref().map_or_else(
                || format!("revision {}, {} routes", state.revision, state.routes),
                |problem| format!("the last good table serves: {}", problem.message),
            );
            let age = clock::since(state.loaded_at);
            conditions.push(Condition::new("routes", true).with_message(message).with_age(age));
        }
        #[cfg(feature = "operator")]
        conditions.extend(self.operator.iter().flat_map(LinkView::conditions));
        Readiness { conditions }
    }

    fn tunnels(&self, after: Option<&str>, limit: usize) -> Vec<TunnelRow> {
        let mut rows: Vec<(String, Arc<Instance>, Live)> = self
            .door
            .registry
            .all()
            .into_iter()
            .flat_map(|instance| {
                let live = instance.live();
                live.into_iter().map(move |live| (key(&instance, &live), instance.clone(), live))
            })
            .filter(|(key, ..)| after.is_none_or(|after| key.as_str() > after))
            .collect();
        rows.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        rows.truncate(limit);
        rows.into_iter().map(|(key, instance, live)| row(key, &instance, &live)).collect()
    }

    fn before_scrape(&self, metrics: &Metrics) {
        let now = Instant::now();
        let (mut channels, mut oldest) = (0, 0.0f64);
        for live in self.door.registry.all().iter().flat_map(|instance| instance.live()) {
            let facts = live.tunnel.facts();
            channels += facts.channels;
            let pong = facts.last_pong.unwrap_or(facts.since);
            oldest = oldest.max(now.saturating_duration_since(pong).as_secs_f64());
        }
        metrics.channels.set(i64::try_from(channels).unwrap_or(i64::MAX));
        metrics.visitors.set(i64::try_from(channels).unwrap_or(i64::MAX));
        metrics.oldest_pong.set(oldest);
        let waiting = i64::try_from(self.door.limits.bytes_waiting()).unwrap_or(i64::MAX);
        metrics.bytes_buffered.set(waiting);
        metrics.handshakes.set(i64::from(self.door.handshakes.count()));
        if let Some(table) = self.door.table() {
            metrics.routes_revision.set(table.revision);
            metrics.routes.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        }
        if let Some(routes) = &self.routes {
            let state = routes.borrow();
            let applied = state.loaded_at.duration_since(UNIX_EPOCH).unwrap_or_default();
            metrics.routes_applied.set(applied.as_secs_f64());
            metrics.routes_error.set(i64::from(state.last_error.is_some()));
        }
        #[cfg(feature = "operator")]
        if let Some(applied) = self.operator.as_ref().and_then(LinkView::applied) {
            metrics.routes_applied.set(applied.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        }
    }
}

/// Orders the pages: by instance, then by session.
fn key(instance: &Instance, live: &Live) -> String {
    format!("{}#{:020}", instance.name, live.number)
}

fn row(key: String, instance: &Instance, live: &Live) -> TunnelRow {
    let facts = live.tunnel.facts();
    let claims = live.session.claims.as_ref();
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    TunnelRow {
        key,
        instance: instance.name.to_string(),
        session: live.number,
        since: live.session.opened.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        agent: Some(live.session.address.ip()),
        version: claims.and_then(|claims| said(&claims.version)),
        agent_version: claims.and_then(|claims| said(&claims.agent)),
        protocol: live.session.protocol.number(),
        cipher: live.session.cipher.name(),
        channels: facts.channels,
        bytes_in: facts.to_peer,
        bytes_out: facts.from_peer,
        last_pong_age_seconds: facts.last_pong.map(|pong| pong.elapsed().as_secs_f64()),
    }
}
