//! What a real API server makes of the custom resources. `./test cluster` runs it, or
//! `cargo test -p latchkey-cluster-tests --test resources -- [NAME]`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail that way"
)]

mod changes;
mod columns;
mod definitions;
mod explain;
mod objects;
mod scenarios;

use std::process::ExitCode;

use latchkey_cluster_tests::Suite;

fn main() -> ExitCode {
    Suite::run(|suite| {
        [definitions::tests, objects::tests, scenarios::tests, changes::tests, explain::tests, columns::tests]
            .into_iter()
            .flat_map(|tests| tests(suite))
            .collect()
    })
}
