//! What a plan costs: the first one, one of everything, and one after an edit, from 1,000 to 100,000 instances.
//!
//! `cargo bench -p planner` measures; its first lines say how much memory a plan takes. A fleet as a vendor has it: a
//! label for half of the instances, of which one in ten is claimed twice, a key each, a custom domain for one in
//! fifty, a hundred versions of one product, two hundred blocks, everybody connected.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that cannot be set up has nothing to measure"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use divan::Bencher;
use imbl::{OrdMap, OrdSet};
use planner::{
    Applied, CertificateFacts, Facts, Inventory, Plan, Previous, Proof, ProofAnswer, Report, Seed, Settings,
    Timestamp, Tunnel, plan,
};
use resources::{Observed, RemoteInstance, VersionBlock};
use route_table::{Fingerprint, InstanceId};
use serde_json::json;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const MOST: usize = 100_000;
const BLOCKS: usize = 200;
const NOW: Timestamp = Timestamp(1_795_255_200);

fn main() {
    // First, while nothing freed lies around to be used again.
    memory();
    divan::main();
}

fn id(at: usize) -> InstanceId {
    format!("homes/instance-{at:06}").parse().unwrap()
}

fn instance(at: usize, edit: usize) -> Arc<Observed<RemoteInstance>> {
    let mut spec = json!({
        "enabled": !at.is_multiple_of(20),
        "agentKeys": [format!("{at:064x}")],
        "version": format!("2026.{}.{}", at % 12 + 1, at % 8),
        "access": {"maxConnections": 512 + edit},
    });
    // 5,000 conflicts among 100,000: every twentieth asks for the label of the one before.
    if at.is_multiple_of(2) {
        let label = if at % 20 == 10 { at - 2 } else { at };
        spec["hostname"] = json!(format!("house-{label}"));
    }
    if at % 50 == 1 {
        spec["customDomains"] = json!([format!("house-{at}.example")]);
    }
    if at % 100 == 3 {
        spec["acceptedBlocks"] = json!([{"name": "block-017", "reason": "isolated", "by": "ops"}]);
    }
    let object = json!({
        "apiVersion": "latchkey.dev/v1alpha1", "kind": "RemoteInstance",
        "metadata": {
            "namespace": "homes", "name": format!("instance-{at:06}"), "generation": 1 + edit,
            "creationTimestamp": Timestamp(1_700_000_000 + i64::try_from(at).unwrap()).to_string(),
        },
        "spec": spec,
    });
    Arc::new(Observed::read(object).unwrap())
}

fn block(at: usize) -> (String, Arc<Observed<VersionBlock>>) {
    let name = format!("block-{at:03}");
    let range = match at % 4 {
        0 => format!(">=2026.{}.1, <2026.{}.2", at % 12 + 1, at % 12 + 1),
        1 => format!("<=202{}.1.4", at % 6),
        2 => format!("2025.{}.{}", at % 12 + 1, at % 8),
        _ => format!(">=2024.{}, <2024.{}.3", at % 12 + 1, at % 12 + 1),
    };
    let object = json!({
        "apiVersion": "latchkey.dev/v1alpha1", "kind": "VersionBlock", "metadata": {"name": name, "generation": 1},
        "spec": {
            "versions": [range, "<=2021.1.4"], "reason": "Directory traversal",
            "moreInfo": "https://example.com/advisory", "action": if at.is_multiple_of(10) { "Block" } else { "Warn" },
        },
    });
    (name, Arc::new(Observed::read(object).unwrap()))
}

fn report(at: usize) -> Arc<Report> {
    Arc::new(Report {
        tunnel: Some(Tunnel {
            connected: true,
            since: Timestamp(NOW.0 - 3_600),
            agent_version: Some("0.1.0".to_owned()),
            protocol_version: Some(2),
        }),
        version: Some(format!("2026.{}.{}", at % 12 + 1, at % 8)),
        certificate: Some(CertificateFacts {
            fingerprint: Fingerprint::from_bytes([u8::try_from(at % 251).unwrap(); 32]),
            names: vec![format!("house-{at}.ui.example.com")],
            issuer: Some("Let's Encrypt".to_owned()),
            not_after: Some(Timestamp(NOW.0 + 5_000_000)),
            acme_account_uri: None,
            strange: OrdSet::new(),
        }),
    })
}

fn fleet(size: usize) -> Inventory {
    let spec = serde_json::from_value(json!({"domain": "ui.example.com"})).unwrap();
    let settings = Settings { name: "default".to_owned(), spec, seed: Seed::new([7; 32]) };
    let proof = |at: usize| {
        let proof = Proof { answer: Some((ProofAnswer::Txt, NOW)), missing_since: None, trouble: None };
        ((format!("house-{at}.example").parse().unwrap(), id(at)), proof)
    };
    Inventory {
        settings: Arc::new(settings),
        instances: (0..size).map(|at| (id(at), instance(at, 0))).collect(),
        blocks: (0..BLOCKS).map(block).collect(),
        facts: Facts {
            proofs: (0..size).filter(|at| at % 50 == 1).map(proof).collect(),
            reports: (0..size).map(|at| (id(at), report(at))).collect(),
            released: OrdMap::new(),
            applied: Applied { ready_proxies: 2, revision: Some(1) },
        },
    }
}

/// The very first plan: nothing is known.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn first_plan(bencher: Bencher<'_, '_>, size: usize) {
    let fleet = fleet(size);
    bencher.bench_local(|| plan(black_box(&fleet), &Previous::default(), NOW));
}

/// Everything is looked at again, and nothing is different: what a resync costs.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn plan_of_everything(bencher: Bencher<'_, '_>, size: usize) {
    let fleet = fleet(size);
    let (_, previous) = plan(&fleet, &Previous::default(), NOW);
    let known = previous.decisions_alone();
    bencher.bench_local(|| plan(black_box(&fleet), &known, NOW));
}

/// A version block comes: everybody is looked at again.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn one_block_more(bencher: Bencher<'_, '_>, size: usize) {
    let fleet = fleet(size);
    let (_, previous) = plan(&fleet, &Previous::default(), NOW);
    let mut edited = fleet.clone();
    edited.blocks.insert("new".to_owned(), block(1).1);
    bencher.bench_local(|| plan(black_box(&edited), &previous, NOW));
}

/// One instance is edited.
#[divan::bench(args = SIZES, sample_count = 50, sample_size = 1)]
fn one_edit(bencher: Bencher<'_, '_>, size: usize) {
    let fleet = fleet(size);
    let (_, previous) = plan(&fleet, &Previous::default(), NOW);
    let mut edit = 0;
    bencher
        .with_inputs(|| {
            edit += 1;
            let at = edit * 37 % size;
            let mut edited = fleet.clone();
            edited.instances.insert(id(at), instance(at, edit));
            edited
        })
        .bench_local_refs(|edited| plan(black_box(edited), &previous, NOW));
}

/// An instance gives up a label that another waits for.
#[divan::bench(args = SIZES, sample_count = 50, sample_size = 1)]
fn one_conflict_solved(bencher: Bencher<'_, '_>, size: usize) {
    let fleet = fleet(size);
    let (_, previous) = plan(&fleet, &Previous::default(), NOW);
    let mut edited = fleet.clone();
    edited.instances.remove(&id(8));
    bencher.bench_local(|| plan(black_box(&edited), &previous, NOW));
}

/// Prints how much resident memory plans add (Linux).
fn memory() {
    let resident = || -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    let empty = resident();
    let fleet = fleet(MOST);
    let with_fleet = resident();
    let begin = Instant::now();
    let (first, previous) = plan(&fleet, &Previous::default(), NOW);
    let took = begin.elapsed();
    let with_plan = resident();
    let conflicts = |plan: &Plan| {
        let in_conflict = |status: &resources::RemoteInstanceStatus| {
            status.conditions.iter().any(|condition| condition.reason == "NameConflict")
        };
        plan.instances.values().filter(|status| in_conflict(status)).count()
    };
    let mut edited = fleet.clone();
    edited.instances.insert(id(7), instance(7, 1));
    let (second, previous) = (plan(&edited, &previous, NOW), previous);
    let with_second = resident();
    let mib = |kib: usize| kib / 1024;
    println!(
        "{MOST} instances, {BLOCKS} blocks, {} conflicts: the objects and facts keep {} MiB, the plan and what spares \
         the next one work {} MiB, a second plan beside it {} MiB; in memory never used before it took {} ms",
        conflicts(&first),
        mib(with_fleet.saturating_sub(empty)),
        mib(with_plan.saturating_sub(with_fleet)),
        mib(with_second.saturating_sub(with_plan)),
        took.as_millis(),
    );
    black_box((second, previous));
}
