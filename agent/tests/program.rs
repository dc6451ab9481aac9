//! The binary itself: what it prints, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use snitun::cipher::{AesIv, AesKey, CipherKind};
use snitun::driver::server_handshake;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

const TOKEN: &str = "gAAAA-a-token";
const LONG: Duration = Duration::from_secs(20);

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_latchkey-agent")).args(args).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_shows_examples_and_every_way_in() {
    let help = text(&run(&["--help"]).stdout);
    for word in
        ["Examples:", "--join", "--session", "--mode", "--target", "LATCHKEY_TARGET", "fingerprint", "key"]
    {
        assert!(help.contains(word), "{word} is not in the help");
    }
}

#[test]
fn the_key_is_printed_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let args = ["key", "--state", state.to_str().unwrap()];
    let first = run(&args);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let hash = text(&first.stdout);
    assert!(hash.trim().len() == 64 && hash.trim().chars().all(|c| c.is_ascii_hexdigit()), "{hash}");
    assert_eq!(text(&run(&args).stdout), hash);
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap();
    for (args, says) in [
        (&["fingerprint", "--state", state][..], "makes it when it starts in terminate mode"),
        (&["--target", "127.0.0.1:1"], "--join"),
        (&["--server", "h:1", "--session", "f", "--target", "127.0.0.1"], "HOST:PORT"),
        (
            &["--join", "/nowhere/bundle.json", "--target", "127.0.0.1:1", "--state", state],
            "/nowhere/bundle.json",
        ),
    ] {
        let output = run(args);
        assert!(!output.status.success());
        let error = text(&output.stderr);
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

/// A running agent, and its tunnel at our end.
struct Running {
    child: tokio::process::Child,
    tunnel: TcpStream,
}

async fn running(dir: &Path, more: &[&str]) -> Running {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let session = dir.join("session.json");
    let (key, iv) = (AesKey([1; 32]), AesIv([2; 16]));
    let json = serde_json::json!({"token": TOKEN, "aes_key": key.to_hex(), "aes_iv": iv.to_hex()});
    std::fs::write(&session, json.to_string()).unwrap();
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_latchkey-agent"))
        .env_clear()
        .args(["--server", &proxy.local_addr().unwrap().to_string(), "--session", session.to_str().unwrap()])
        .args(["--state", dir.join("state").to_str().unwrap(), "--target", "127.0.0.1:9"])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut tunnel, _) = tokio::time::timeout(LONG, proxy.accept()).await.expect("it connects").unwrap();
    let mut token = vec![0; TOKEN.len()];
    tunnel.read_exact(&mut token).await.unwrap();
    assert_eq!(token, TOKEN.as_bytes());
    server_handshake(&mut tunnel, CipherKind::AesCbc, &key, &iv).await.unwrap();
    Running { child, tunnel }
}

impl Running {
    fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    async fn ends(mut self) -> ExitStatus {
        // What it still says must not hold it up.
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(LONG, self.tunnel.read_to_end(&mut rest)).await;
        tokio::time::timeout(LONG, self.child.wait()).await.expect("it ends").unwrap()
    }
}

#[tokio::test]
async fn told_to_stop_it_ends_well() {
    for mode in ["passthrough", "terminate"] {
        let dir = tempfile::tempdir().unwrap();
        let agent = running(dir.path(), &["--mode", mode]).await;
        agent.terminate();
        assert_eq!(agent.ends().await.code(), Some(0), "{mode}");
    }
}

#[tokio::test]
async fn terminate_leaves_a_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let agent = running(dir.path(), &["--hostname", "home.example.com"]).await;
    let printed = run(&["fingerprint", "--state", dir.path().join("state").to_str().unwrap()]);
    let printed = text(&printed.stdout);
    assert!(printed.contains("home.example.com"), "{printed}");
    let fingerprint = printed.lines().next().unwrap().split_whitespace().last().unwrap();
    assert_eq!(fingerprint.split(':').count(), 32, "{printed}");
    agent.terminate();
    agent.ends().await;
}
