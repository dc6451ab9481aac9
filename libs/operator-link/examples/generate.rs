//! Writes `src/generated.rs` from the contract: `cargo run -p operator-link --example generate`.

#[path = "../tests/generation/mod.rs"]
mod generation;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::fs::write(generation::generated_path(), generation::generate()?)?;
    Ok(())
}
