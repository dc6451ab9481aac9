//! Metrics of parts that not every proxy has: they are registered with those parts.

use prometheus_client::registry::{Metric, Unit};

use super::{ByLabel, Label, Metrics, PREFIX, Seconds};

impl Metrics {
    /// One more metric.
    pub(crate) fn also<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.sub_registry_with_prefix(PREFIX).register(name, help, metric.clone());
        metric
    }

    /// One more gauge of seconds.
    pub(crate) fn also_seconds(&mut self, name: &str, help: &str) -> Seconds {
        let metric = Seconds::default();
        let registry = self.registry.sub_registry_with_prefix(PREFIX);
        registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    /// One more counter for each variant of a label.
    pub(crate) fn also_by_label<L: Label>(&mut self, name: &str, help: &str) -> ByLabel<L> {
        ByLabel::register(self.registry.sub_registry_with_prefix(PREFIX), name, help)
    }
}
