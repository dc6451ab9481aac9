//! Reads pairs of calendar versions, one pair a line, and prints -1, 0, 1, or `unreadable`.
//!
//! `printf '2023.9.0b3 2023.9.0\n' | cargo run -p policy --example compare` prints `-1`.

use std::io::{BufRead, Write};

use policy::{ProductVersion, VersionScheme};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut versions = line
            .split_whitespace()
            .map(|text| ProductVersion::parse(text, VersionScheme::Calendar))
            .filter_map(Result::ok);
        match (versions.next(), versions.next()) {
            (Some(left), Some(right)) => writeln!(out, "{}", left.cmp(&right) as i8)?,
            _ => writeln!(out, "unreadable")?,
        }
    }
    Ok(())
}
