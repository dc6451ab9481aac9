//! Our own programs, as they were built beside this test.

use std::path::PathBuf;

use latchkey_cluster_tests::TestError;

/// Names a folder with the programs, where they are not beside the tests.
const FOLDER_VARIABLE: &str = "LATCHKEY_BIN_DIR";

/// Where a program is.
pub(crate) fn program(name: &str) -> Result<PathBuf, TestError> {
    let told = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
    let folder = if let Some(folder) = told {
        PathBuf::from(folder)
    } else {
        // target/PROFILE/deps/this-test
        let test = std::env::current_exe()?;
        test.ancestors().nth(2).ok_or("the test is nowhere")?.to_owned()
    };
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("{} is not there: cargo build --workspace --bins (same profile)", path.display()).into())
}
