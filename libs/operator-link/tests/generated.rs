//! The committed code is what the contract says.

#![allow(clippy::unwrap_used, reason = "in a test a failed expectation is the message")]

mod generation;

#[test]
fn the_generated_code_is_fresh() {
    let expected = generation::generate().unwrap();
    let found = std::fs::read_to_string(generation::generated_path()).unwrap();
    assert!(found == expected, "stale: cargo run -p operator-link --example generate");
}
