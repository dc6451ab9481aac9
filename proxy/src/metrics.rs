//! What the proxy counts, in Prometheus' conventions.
//!
//! Every series exists from the start (a rate over a series that appears late misses its first event), every
//! label is an enum of this module, so no visitor can make new series, and every handle is cached: counting is
//! one relaxed atomic addition. A data thread that moves bytes should add up per turn and count once.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::{EncodeLabelKey, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

mod labels;
#[cfg(feature = "operator")]
mod more;
mod process;
mod record;

#[cfg(feature = "operator")]
pub use labels::UpdateResult;
pub use labels::{
    Answer, Direction, Label, RefusalReason, ResetCause, TunnelEndReason, TunnelOpenResult, VisitorOutcome,
};

/// What every name of ours begins with.
const PREFIX: &str = "latchkey_proxy";

/// A gauge of seconds.
pub type Seconds = Gauge<f64, AtomicU64>;

/// One counter for each variant of a label.
pub struct ByLabel<L>(Vec<Counter>, std::marker::PhantomData<fn(L)>);

impl<L: Label> ByLabel<L> {
    fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::<LabelPair<L>, Counter>::default();
        let counters = L::ALL.iter().map(|label| family.get_or_create_owned(&LabelPair(*label))).collect();
        registry.register(name, help, family);
        Self(counters, std::marker::PhantomData)
    }

    /// The counter of `label`.
    pub fn get(&self, label: L) -> Option<&Counter> {
        self.0.get(label.index())
    }

    /// Counts one.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts `n`.
    pub fn add(&self, label: L, n: u64) {
        if let Some(counter) = self.get(label) {
            counter.inc_by(n);
        }
    }

    /// What was counted so far.
    pub fn count(&self, label: L) -> u64 {
        self.get(label).map_or(0, Counter::get)
    }
}

impl<L> fmt::Debug for ByLabel<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ByLabel").field(&self.0).finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LabelPair<L>(L);

impl<L: Label> EncodeLabelSet for LabelPair<L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let mut pair = encoder.encode_label();
        let mut key = pair.encode_label_key()?;
        EncodeLabelKey::encode(&L::KEY, &mut key)?;
        let mut value = key.encode_label_value()?;
        EncodeLabelValue::encode(&self.0.text(), &mut value)?;
        value.finish()
    }
}

/// Every metric of the proxy. Made once, shared by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,

    /// Visitors let through to a tunnel.
    pub visitors_accepted: Counter,
    /// Visitors turned away, by why.
    pub visitors_refused: ByLabel<RefusalReason>,
    /// Visitors connected to an instance at this moment.
    pub visitors: Gauge,
    /// How long visitors' connections lived.
    pub visitor_duration: Histogram,
    /// How visitors' connections ended.
    pub visitors_ended: ByLabel<VisitorOutcome>,
    /// Bytes forwarded, by direction.
    pub bytes: ByLabel<Direction>,

    /// Tunnels open at this moment.
    pub tunnels: Gauge,
    /// Attempts to open a tunnel, by result.
    pub tunnel_opens: ByLabel<TunnelOpenResult>,
    /// Tunnels that ended, by why.
    pub tunnel_ends: ByLabel<TunnelEndReason>,
    /// Round trips of pings to agents.
    pub pong_round_trip: Histogram,
    /// The longest time that any open tunnel has not answered; set before a scrape.
    pub oldest_pong: Seconds,
    /// Channels open at this moment.
    pub channels: Gauge,
    /// How often a peer asked for a pause.
    pub pauses: Counter,
    /// Channels that were reset, by what made it so.
    pub channel_resets: ByLabel<ResetCause>,
    /// Bytes held in buffers because somebody reads slowly.
    pub bytes_buffered: Gauge,

    /// Visitors that wait for a tunnel to come back.
    pub parked: Gauge,
    /// Parked visitors whose tunnel came back.
    pub parked_served: Counter,
    /// Parked visitors whose tunnel did not.
    pub parked_timed_out: Counter,
    /// Connections that have not yet shown what they are, and tunnels being opened.
    pub handshakes: Gauge,

    /// Connections to the session API at this moment.
    pub api_connections: Gauge,
    /// Answers of the session API, by status.
    pub api_answers: ByLabel<Answer>,

    /// The revision of the route table in use.
    pub routes_revision: Gauge<u64, AtomicU64>,
    /// Routes in the table.
    pub routes: Gauge,
    /// When the table in use was applied, in Unix seconds.
    pub routes_applied: Seconds,
    /// 1 while the newest table could not be read and the last good one serves.
    pub routes_error: Gauge,
    /// Fernet keys in use.
    pub fernet_keys: Gauge,
    /// When the Fernet keys in use were loaded, in Unix seconds.
    pub fernet_keys_loaded: Seconds,
    /// 1 while the key file could not be read and the last good keys serve.
    pub fernet_keys_error: Gauge,
    /// 1 from the beginning of a drain.
    pub draining: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let mut root = Registry::default();
        process::register(&mut root);
        let r = root.sub_registry_with_prefix(PREFIX);
        r.register("build", "The build that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let byte_unit = || Unit::Bytes;
        Self {
            visitors_accepted: counter(r, "visitors_accepted", "Visitors let through to a tunnel"),
            visitors_refused: ByLabel::register(r, "visitors_refused", "Visitors turned away, by why"),
            visitors: gauge(r, "visitors", "Visitors connected to an instance at this moment"),
            // 10 ms to 12 days: a page, a download, a websocket that stays.
            visitor_duration: histogram(
                r,
                "visitor_duration",
                "How long visitors' connections lived",
                exponential_buckets(0.01, 4.0, 14),
            ),
            visitors_ended: ByLabel::register(r, "visitors_ended", "How visitors' connections ended"),
            bytes: ByLabel::register(r, "forwarded_bytes", "Bytes forwarded, by direction"),
            tunnels: gauge(r, "tunnels", "Tunnels open at this moment"),
            tunnel_opens: ByLabel::register(r, "tunnel_opens", "Attempts to open a tunnel, by result"),
            tunnel_ends: ByLabel::register(r, "tunnel_ends", "Tunnels that ended, by why"),
            // 0.5 ms to 16 s.
            pong_round_trip: histogram(
                r,
                "pong_round_trip",
                "Round trips of pings to agents",
                exponential_buckets(0.0005, 2.0, 16),
            ),
            oldest_pong: with_unit(
                r,
                "tunnel_oldest_pong_age",
                "The longest time that any open tunnel has not answered",
                Unit::Seconds,
            ),
            channels: gauge(r, "channels", "Channels open at this moment"),
            pauses: counter(r, "channel_pauses", "How often a peer asked for a pause"),
            channel_resets: ByLabel::register(r, "channel_resets", "Channels that were reset, by cause"),
            bytes_buffered: with_unit(r, "buffered", "Bytes held because somebody reads slowly", byte_unit()),
            parked: gauge(r, "parked_visitors", "Visitors that wait for a tunnel to come back"),
            parked_served: counter(r, "parked_visitors_served", "Parked visitors whose tunnel came back"),
            parked_timed_out: counter(r, "parked_visitors_timed_out", "Parked visitors that waited in vain"),
            handshakes: gauge(r, "handshakes", "Connections that have not yet shown what they are"),
            api_connections: gauge(r, "session_api_connections", "Connections to the session API"),
            api_answers: ByLabel::register(r, "session_api_answers", "Answers of the session API, by status"),
            routes_revision: with_help(r, "route_table_revision", "The revision of the route table in use"),
            routes: gauge(r, "route_table_routes", "Routes in the table"),
            routes_applied: with_unit(
                r,
                "route_table_applied_timestamp",
                "When the route table in use was applied",
                Unit::Seconds,
            ),
            routes_error: gauge(r, "route_table_error", "1 while the newest route table could not be read"),
            fernet_keys: gauge(r, "fernet_keys", "Fernet keys in use"),
            fernet_keys_loaded: with_unit(
                r,
                "fernet_keys_loaded_timestamp",
                "When the Fernet keys in use were loaded",
                Unit::Seconds,
            ),
            fernet_keys_error: gauge(r, "fernet_keys_error", "1 while the key file could not be read"),
            draining: gauge(r, "draining", "1 from the beginning of a drain"),
            registry: root,
        }
    }

    /// The text of a scrape (`OpenMetrics` 1.0).
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

pub(crate) fn unix_now() -> f64 {
    crate::clock::unix().as_secs_f64()
}

fn with_help<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn with_unit<M>(registry: &mut Registry, name: &str, help: &str, unit: Unit) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register_with_unit(name, help, unit, metric.clone());
    metric
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    with_help(registry, name, help)
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    with_help(registry, name, help)
}

fn histogram(
    registry: &mut Registry,
    name: &str,
    help: &str,
    buckets: impl Iterator<Item = f64>,
) -> Histogram {
    let histogram = Histogram::new(buckets);
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

/// Counts something up while it lives.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// Adds one to `gauge` until it is dropped.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Shared metrics.
pub type SharedMetrics = Arc<Metrics>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use snitun::driver::{ChannelEnd, CloseReason};

    use super::*;

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let text = Metrics::new().render().unwrap();
        for reason in RefusalReason::ALL {
            let line = format!("latchkey_proxy_visitors_refused_total{{reason=\"{}\"}} 0\n", reason.text());
            assert!(text.contains(&line), "{line} not in\n{text}");
        }
        assert!(text.contains("latchkey_proxy_build_info{version=\""), "{text}");
        assert!(text.contains("# UNIT latchkey_proxy_visitor_duration_seconds seconds"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.visitors_refused.inc(RefusalReason::Blocked);
        let lived = Duration::from_millis(20);
        metrics.channel_ended(&ChannelEnd { why: CloseReason::LocalEnd, to_peer: 0, from_peer: 4096, lived });
        metrics.routes_revision.set(7);
        metrics.routes.set(3);
        assert_eq!(metrics.visitors_refused.count(RefusalReason::Blocked), 1);
        let text = metrics.render().unwrap();
        for line in [
            "latchkey_proxy_visitors_refused_total{reason=\"blocked\"} 1\n",
            "latchkey_proxy_forwarded_bytes_total{direction=\"to_visitor\"} 4096\n",
            "latchkey_proxy_visitors 0\n",
            "latchkey_proxy_visitor_duration_seconds_bucket{le=\"0.04\"} 1\n",
            "latchkey_proxy_visitors_ended_total{by=\"visitor\"} 1\n",
            "latchkey_proxy_route_table_revision 7\n",
            "latchkey_proxy_route_table_routes 3\n",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn no_label_value_is_written_twice() {
        fn distinct<L: Label>() {
            let mut texts: Vec<_> = L::ALL.iter().map(|label| label.text()).collect();
            texts.sort_unstable();
            texts.dedup();
            assert_eq!(texts.len(), L::ALL.len());
            for (index, label) in L::ALL.iter().enumerate() {
                assert_eq!(label.index(), index);
            }
        }
        distinct::<RefusalReason>();
        distinct::<TunnelEndReason>();
        distinct::<TunnelOpenResult>();
        distinct::<ResetCause>();
        distinct::<Answer>();
        distinct::<VisitorOutcome>();
        distinct::<Direction>();
    }

    #[test]
    fn held_counts_down_when_dropped() {
        let metrics = Metrics::new();
        let held = Held::new(&metrics.handshakes);
        assert_eq!(metrics.handshakes.get(), 1);
        drop(held);
        assert_eq!(metrics.handshakes.get(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_is_measured() {
        let text = Metrics::new().render().unwrap();
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_open_fds "), "{text}");
        assert!(text.contains("process_start_time_seconds "), "{text}");
    }
}
