//! Facts about the process itself, under the names every Prometheus client uses.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::{Registry, Unit},
};

use super::{Seconds, unix_now};

/// Registers start time, resident memory and open descriptors.
pub(super) fn register(registry: &mut Registry) {
    let start = Seconds::default();
    start.set(unix_now());
    registry.register_with_unit("process_start_time", "When the process started", Unit::Seconds, start);
    registry.register_collector(Box::new(Process));
}

/// Reads `/proc/self` at each scrape; says nothing where there is none.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(bytes) = resident_bytes() {
            let gauge = ConstGauge::new(bytes);
            let metric = encoder.encode_descriptor(
                "process_resident_memory",
                "Memory in use",
                Some(&Unit::Bytes),
                gauge.metric_type(),
            )?;
            gauge.encode(metric)?;
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // The listing itself holds one.
            let open = i64::try_from(entries.count()).unwrap_or(i64::MAX).saturating_sub(1);
            let gauge = ConstGauge::new(open);
            let metric = encoder.encode_descriptor(
                "process_open_fds",
                "Open descriptors",
                None,
                gauge.metric_type(),
            )?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
