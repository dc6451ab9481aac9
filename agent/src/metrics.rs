//! What the agent counts.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// A figure that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// More of it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How much.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Tunnels opened.
    pub tunnels_opened: Counter,
    /// Tunnels ended.
    pub tunnels_ended: Counter,
    /// Is there a tunnel that takes visitors?
    pub connected: AtomicU64,
    /// Attempts that failed for a reason that may pass.
    pub attempts_failed: Counter,
    /// Attempts the session API refused.
    pub attempts_refused: Counter,
    /// Visitors let in.
    pub channels_opened: Counter,
    /// Visitors gone.
    pub channels_closed: Counter,
    /// Visitors turned away.
    pub channels_refused: Counter,
    /// Bytes visitors sent, counted at their end.
    pub bytes_from_visitors: Counter,
    /// Bytes visitors got, counted at their end.
    pub bytes_to_visitors: Counter,
}

impl Metrics {
    /// Sets whether there is a tunnel that takes visitors.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(u64::from(connected), Ordering::Relaxed);
    }

    /// Is there one?
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed) == 1
    }

    /// In Prometheus' text format.
    pub fn text(&self) -> String {
        // A new figure breaks this line until it is written below.
        let Self {
            tunnels_opened,
            tunnels_ended,
            connected,
            attempts_failed,
            attempts_refused,
            channels_opened,
            channels_closed,
            channels_refused,
            bytes_from_visitors,
            bytes_to_visitors,
        } = self;
        let open = channels_opened.get().saturating_sub(channels_closed.get());
        let gauges = [
            ("connected", connected.load(Ordering::Relaxed), "1 while a tunnel takes visitors"),
            ("channels", open, "Visitors' connections open"),
        ];
        let counters = [
            ("tunnels_opened", tunnels_opened, "Tunnels opened"),
            ("tunnels_ended", tunnels_ended, "Tunnels ended"),
            ("attempts_failed", attempts_failed, "Attempts at a tunnel that failed"),
            ("attempts_refused", attempts_refused, "Attempts at a tunnel that the session API refused"),
            ("channels_opened", channels_opened, "Visitors' connections let in"),
            ("channels_refused", channels_refused, "Visitors' connections turned away"),
            ("received_bytes", bytes_from_visitors, "Bytes from visitors whose connection has ended"),
            ("sent_bytes", bytes_to_visitors, "Bytes to visitors whose connection has ended"),
        ];
        let mut text = String::new();
        for (name, value, help) in gauges {
            let name = format!("latchkey_agent_{name}");
            let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge\n{name} {value}");
        }
        for (name, counter, help) in counters {
            let name = format!("latchkey_agent_{name}_total");
            let value = counter.get();
            let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} counter\n{name} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told() {
        let metrics = Metrics::default();
        metrics.channels_opened.add(3);
        metrics.channels_closed.add(1);
        metrics.set_connected(true);
        let text = metrics.text();
        assert!(text.contains("\nlatchkey_agent_channels 2\n"), "{text}");
        assert!(text.contains("\nlatchkey_agent_channels_opened_total 3\n"), "{text}");
        assert!(text.contains("\nlatchkey_agent_connected 1\n"), "{text}");
    }
}
