//! A control plane to look at: `cargo run -p latchkey-cluster-tests --example control-plane`. Ends with Enter.

use std::io::Read;

use latchkey_cluster_tests::{ControlPlane, TestError};

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it talks to people")]
async fn main() -> Result<(), TestError> {
    let control_plane = ControlPlane::start().await?;
    control_plane.install_definitions().await?;
    println!("export KUBECONFIG={}", control_plane.kubeconfig().display());
    println!("The resources are installed. Enter ends it.");
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
    Ok(())
}
