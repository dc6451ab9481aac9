//! The protocol against a model of it: random schedules over two multiplexers, without sockets and without a clock.
//!
//! A schedule that fails prints its seed; `LATCHKEY_MODEL_SEED=<seed>` runs that one alone, `LATCHKEY_MODEL_SEEDS=<n>`
//! says how many are run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test"
)]

mod chance;
mod reference;
mod wire;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Instant,
};

use crate::{
    reference::Pattern,
    world::{Outcome, Tally, World},
};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

#[test]
fn what_one_side_says_the_other_hears_whatever_the_schedule() {
    let usual = 3000;
    let seeds = match number("LATCHKEY_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LATCHKEY_MODEL_SEEDS").unwrap_or(usual),
    };
    let (pattern, start) = (Pattern::new(), Instant::now());
    let (mut total, mut outcomes) = (Tally::default(), [0u64; 3]);
    for seed in seeds.clone() {
        let schedule = AssertUnwindSafe(|| World::new(seed, start, &pattern).run());
        let (outcome, tally) = catch_unwind(schedule).unwrap_or_else(|failure| {
            eprintln!("the schedule of LATCHKEY_MODEL_SEED={seed} failed");
            resume_unwind(failure)
        });
        outcomes[outcome as usize] += 1;
        total.add(&tally);
    }
    println!("{} schedules in {:?}: {total:?}", seeds.end - seeds.start, start.elapsed());
    if seeds.end - seeds.start >= 200 {
        // A model in which nothing happens finds nothing.
        assert!(outcomes[Outcome::Settled as usize] > (seeds.end - seeds.start) / 2);
        assert!(
            total.lost > 0 && total.ended_by_client > 0 && total.overflows > 0 && total.pauses > 0,
            "{total:?}"
        );
        assert!(total.channels > 1000 && total.bytes > 1 << 20, "{total:?}");
    }
}
