//! The messages, generated from the contract without anything but crates.

use std::error::Error;
use std::path::{Path, PathBuf};

/// Where the generated code stands.
pub(crate) fn generated_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated.rs")
}

/// The code that belongs there.
pub(crate) fn generate() -> Result<String, Box<dyn Error>> {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let contract = protox::compile(["latchkey/link/v1/link.proto"], [&protos])?;
    let folder = std::env::temp_dir().join(format!("operator-link-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    // Its own transport is left out: both sides bring connections of their own.
    tonic_prost_build::configure()
        .build_transport(false)
        .skip_debug(["TokenKeys", "Enrol"])
        .out_dir(&folder)
        .compile_fds(contract)?;
    let code = std::fs::read_to_string(folder.join("latchkey.link.v1.rs"))?;
    std::fs::remove_dir_all(&folder)?;
    Ok(code)
}
