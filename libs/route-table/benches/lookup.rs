//! What a visitor's lookup costs in a table of 100,000 routes, and what reading such a table costs.
//!
//! `cargo bench -p route-table` measures; its first line says how much memory the table keeps.

use std::fmt::Write as _;
use std::hint::black_box;

use divan::Bencher;
use route_table::{Fingerprint, RouteTable};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

const ROUTES: usize = 100_000;

fn main() {
    // First, while nothing freed lies around to be used again.
    memory();
    divan::main();
}

/// JSON of many routes that differ the way real ones do: own name and key, few versions, one list of blocks.
fn file(routes: usize) -> String {
    let mut text = String::from("{\"revision\":1,\"domain\":\"ui.example.com\",\"routes\":[");
    for at in 0..routes {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}{{\"id\":\"homes/instance-{at}\",\"hostnames\":[\"k3v9q2x7m4{at:022}.ui.example.com\"],\
             \"version\":\"2026.{}.{}\",\"agentKeys\":[\"{at:064x}\"],\"blocks\":[{{\"name\":\"core-2021-1-4\",\
             \"versions\":[\"<=2021.1.4\"],\"reason\":\"Directory traversal\"}}]}}",
            at % 12 + 1,
            at % 5
        );
    }
    text + "]}"
}

fn table(routes: usize) -> RouteTable {
    RouteTable::parse(&file(routes)).unwrap_or_default()
}

fn names() -> Vec<String> {
    (0..ROUTES).step_by(97).map(|at| format!("k3v9q2x7m4{at:022}.ui.example.com")).collect()
}

#[divan::bench]
fn by_host_lower_case(bencher: Bencher<'_, '_>) {
    let (table, names) = (table(ROUTES), names());
    let mut next = names.iter().cycle();
    bencher.bench_local(|| next.next().and_then(|name| table.by_host(black_box(name))).is_some());
}

#[divan::bench]
fn by_host_upper_case(bencher: Bencher<'_, '_>) {
    let (table, names) = (table(ROUTES), names().iter().map(|name| name.to_uppercase()).collect::<Vec<_>>());
    let mut next = names.iter().cycle();
    bencher.bench_local(|| next.next().and_then(|name| table.by_host(black_box(name))).is_some());
}

#[divan::bench]
fn by_host_unknown(bencher: Bencher<'_, '_>) {
    let table = table(ROUTES);
    bencher.bench_local(|| table.by_host(black_box("nobody-here.ui.example.com")).is_some());
}

#[divan::bench]
fn by_agent_key(bencher: Bencher<'_, '_>) {
    let table = table(ROUTES);
    let unknown = Fingerprint::from_bytes([9; 32]);
    bencher.bench_local(|| table.by_agent_key(black_box(&unknown)).is_some());
}

#[divan::bench]
fn admit_by_declared_version(bencher: Bencher<'_, '_>) {
    let table = table(1);
    let route = table.routes().next();
    bencher.bench_local(|| route.map(|route| black_box(route).admit(None)));
}

#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 5, sample_size = 1)]
fn parse_json(bencher: Bencher<'_, '_>, routes: usize) {
    let text = file(routes);
    bencher.bench_local(|| RouteTable::parse(black_box(&text)).map(|table| table.len()));
}

/// Prints how much resident memory one table adds (Linux).
#[allow(clippy::print_stdout)]
fn memory() {
    let resident = || -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    let text = file(ROUTES);
    let before = resident();
    let table = RouteTable::parse(&text).unwrap_or_default();
    let after = resident();
    println!("a table of {} routes keeps {} MiB", table.len(), after.saturating_sub(before) / 1024);
}
