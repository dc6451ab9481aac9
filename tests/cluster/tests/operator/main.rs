//! The operator on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod cable;
mod domains;
mod edits;
mod faults;
mod fleet;
mod front;
mod joining;
mod journey;
mod keys;
mod kubelet;
mod leader;
mod line;
mod observe;
mod pretend_kubelet;
mod rbac;
mod released;
mod rights;
mod roll;
mod scale;
mod scenarios;
mod support;
mod workload;
mod write_status;

use std::process::ExitCode;

use latchkey_cluster_tests::Suite;
use libtest_mimic::Trial;

fn main() -> ExitCode {
    let parts: &[fn(&Suite) -> Vec<Trial>] = &[
        domains::tests, //
        edits::tests,
        faults::tests,
        fleet::tests,
        joining::tests,
        journey::tests,
        keys::tests,
        leader::tests,
        observe::tests,
        rbac::tests,
        released::tests,
        rights::tests,
        roll::tests,
        scale::tests,
        scenarios::tests,
        workload::tests,
        write_status::tests,
    ];
    Suite::run(|suite| parts.iter().flat_map(|part| part(suite)).collect())
}
