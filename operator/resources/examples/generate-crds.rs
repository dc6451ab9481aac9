//! Writes `crds/` of this repository: `cargo run -p resources --example generate-crds`.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    std::fs::create_dir_all(&folder)?;
    for (name, text) in resources::crds::files()? {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}
