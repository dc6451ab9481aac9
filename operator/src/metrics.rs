//! What the operator counts, in Prometheus' conventions. Figures belong to the parts; they are collected when somebody asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use resources::condition::{Condition, Truth};

use crate::overview::Overview;
use crate::publish::Publisher;

/// Upper bounds of plans, in seconds.
const PLAN_SECONDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Figures that the driver itself raises.
#[derive(Debug, Clone)]
pub struct Turns {
    plan_seconds: Histogram,
}

impl Default for Turns {
    fn default() -> Self {
        Self { plan_seconds: Histogram::new(PLAN_SECONDS) }
    }
}

impl Turns {
    /// A plan was made.
    pub fn planned(&self, took: Duration) {
        self.plan_seconds.observe(took.as_secs_f64());
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

/// Gives further figures, of parts that only a leader has.
pub type MoreFigures = Box<dyn Fn() -> Vec<Figure> + Send + Sync>;

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its name, without `latchkey_operator_` in front and without `_total`.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// How much.
    pub value: Value,
}

/// How much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Of what only rises.
    Counter(u64),
    /// Of what goes up and down.
    Gauge(f64),
}

impl Metrics {
    /// Collects from these.
    pub fn new(
        turns: &Turns,
        overview: tokio::sync::watch::Receiver<Arc<Overview>>,
        publisher: Arc<Publisher>,
        more: MoreFigures,
    ) -> Self {
        let mut registry = Registry::with_prefix("latchkey_operator");
        let build = Family::<Vec<(&str, &str)>, Gauge>::default();
        build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "Always 1; its label is the version", build);
        registry.register_with_unit(
            "plan_duration",
            "How long plans took",
            Unit::Seconds,
            turns.plan_seconds.clone(),
        );
        registry.register_collector(Box::new(Collected { overview, publisher, more }));
        Self { registry }
    }

    /// In the text format of `OpenMetrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Only a String that cannot grow would be an error.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

struct Collected {
    overview: tokio::sync::watch::Receiver<Arc<Overview>>,
    publisher: Arc<Publisher>,
    more: MoreFigures,
}

impl fmt::Debug for Collected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Collected")
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let overview = Arc::clone(&self.overview.borrow());
        let mut figures = of_overview(&overview);
        figures.extend(of_publisher(&self.publisher));
        figures.extend((self.more)());
        for figure in figures {
            write(&mut encoder, &figure)?;
        }
        by_state(&mut encoder, &overview)?;
        by_proxy(&mut encoder, &self.publisher)
    }
}

fn write(encoder: &mut DescriptorEncoder<'_>, figure: &Figure) -> Result<(), fmt::Error> {
    let Figure { name, help, value } = figure;
    match value {
        Value::Counter(count) => {
            let counter = ConstCounter::new(*count);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
        }
        Value::Gauge(now) => {
            let gauge = ConstGauge::new(*now);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody has so much of anything")]
fn of_overview(overview: &Overview) -> Vec<Figure> {
    let gauge = |name, help, now| Figure { name, help, value: Value::Gauge(now) };
    vec![
        gauge("leader", "Does this process lead?", f64::from(u8::from(overview.term.is_some()))),
        gauge("lease_term", "The term it leads in; 0: it does not", overview.term.unwrap_or(0) as f64),
        gauge("synced", "Have all watches told everything?", f64::from(u8::from(overview.synced))),
        gauge("revision", "The plan in force", overview.revision.unwrap_or(0) as f64),
        gauge("routes", "Routes of the plan in force", overview.routes as f64),
        gauge("version_blocks", "Version blocks there are", overview.blocks.len() as f64),
        Figure {
            name: "turns",
            help: "Turns of the driver: looks, plans, publications",
            value: Value::Counter(overview.turns),
        },
    ]
}

fn of_publisher(publisher: &Publisher) -> Vec<Figure> {
    let so_far = publisher.counters();
    let counter = |name, help, count| Figure { name, help, value: Value::Counter(count) };
    vec![
        counter("tables_published", "Tables published", so_far.published),
        counter("snapshots_sent", "Updates sent that hold everything", so_far.sent_everything),
        counter("deltas_sent", "Updates sent that hold what changed", so_far.sent_changes),
        counter("update_bytes_sent", "Bytes of updates sent", so_far.sent_bytes),
        counter("updates_applied", "Updates that proxies put in force", so_far.applied),
        counter(
            "push_latency_microseconds",
            "From publishing a table to a proxy having it in force, over all updates_applied",
            so_far.applied_microseconds,
        ),
        counter("updates_refused", "Updates that proxies refused", so_far.refused),
        counter("updates_unanswered", "Updates that were never answered", so_far.unanswered),
        counter("fact_batches", "Batches of facts from proxies", so_far.batches),
        counter("facts_dropped", "Facts that made no sense or had no room", so_far.facts_dropped),
        counter("enrolments", "Enrolments asked for", so_far.enrolments),
        counter("enrolments_put_off", "Enrolments told to try again", so_far.enrolments_put_off),
        counter("link_connections", "Connections of proxies", so_far.connections),
        counter("link_connections_refused", "Connections beyond the limit", so_far.connections_refused),
        counter("link_handshakes_failed", "TLS handshakes that failed", so_far.handshakes_failed),
        counter("link_streams", "Streams of proxies that began", so_far.streams),
        counter("link_streams_refused", "Streams refused", so_far.streams_refused),
    ]
}

/// Instances by the reason of their Ready condition: a bounded set of words.
fn by_state(encoder: &mut DescriptorEncoder<'_>, overview: &Overview) -> Result<(), fmt::Error> {
    let mut states: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for status in overview.instances.values() {
        let ready = status.conditions.iter().find(|condition: &&Condition| condition.kind == "Ready");
        let state = ready.map_or(("Unknown", "Unknown"), |ready| {
            let truth = match ready.status {
                Truth::True => "True",
                Truth::False => "False",
                Truth::Unknown => "Unknown",
            };
            (truth, &*ready.reason)
        });
        *states.entry(state).or_default() += 1;
    }
    let help = "Instances by their Ready condition and its reason";
    let mut family = encoder.encode_descriptor("instances", help, None, MetricType::Gauge)?;
    for ((ready, reason), count) in states {
        let labels = [("ready", ready), ("reason", reason)];
        ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// What is known of each proxy that is attached.
fn by_proxy(encoder: &mut DescriptorEncoder<'_>, publisher: &Publisher) -> Result<(), fmt::Error> {
    let proxies = publisher.proxies();
    {
        let help = "How long a proxy has been without the newest table";
        let mut lag =
            encoder.encode_descriptor("proxy_lag", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for proxy in &proxies {
            let labels = [("proxy", &*proxy.name)];
            ConstGauge::new(proxy.lag.as_secs_f64()).encode(lag.encode_family(&labels)?)?;
        }
    }
    let help = "Live tunnels of a proxy";
    let mut tunnels = encoder.encode_descriptor("proxy_tunnels", help, None, MetricType::Gauge)?;
    for proxy in &proxies {
        let labels = [("proxy", &*proxy.name)];
        ConstGauge::new(i64::from(proxy.tunnels)).encode(tunnels.encode_family(&labels)?)?;
    }
    Ok(())
}
