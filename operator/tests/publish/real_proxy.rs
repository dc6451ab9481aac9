//! The proxy's own program at the other end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use latchkey_operator::publish::{Limits, Publisher};
use operator_link::Position;
use tempfile::TempDir;

use crate::rig::{Rig, route, routes, soon};

const POD: &str = "proxies-0";

/// A folder with what a proxy is given, and where it keeps its table.
struct Pod(TempDir);

impl Pod {
    fn new(rig: &Rig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        fs::create_dir(&link).unwrap();
        let (certificate, key) = rig.authority.identity(&[POD]);
        fs::write(link.join("link.crt"), pem("CERTIFICATE", &certificate)).unwrap();
        fs::write(link.join("link.key"), pem("PRIVATE KEY", key.secret_der())).unwrap();
        fs::write(link.join("trust.crt"), pem("CERTIFICATE", rig.authority.certificate())).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, rig: &Rig) -> Program {
        let log = self.path("log");
        let child = Command::new(binary())
            .args(["--listen", "127.0.0.1:0", "--data-threads", "1", "--replica", POD])
            .args(["--operator", &rig.address.to_string(), "--operator-name", "operator", "--operator-tls"])
            .arg(self.path("link"))
            .arg("--table-cache")
            .arg(self.path("table"))
            .arg("--api-tls")
            .arg(self.path("api"))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Program { child, log }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<_> = STANDARD.encode(der).into_bytes().chunks(64).map(<[u8]>::to_vec).collect();
    let text = String::from_utf8(lines.join(&b'\n')).unwrap();
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// A proxy that ends with its owner. Its log is shown when the test fails.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn has(publisher: &Publisher, term: u64, revision: u64) -> bool {
    let position = Some(Position { term, revision });
    publisher.proxies().iter().any(|proxy| proxy.ready && proxy.position == position)
}

#[tokio::test]
async fn the_proxys_program_follows_every_table_also_over_restarts_and_other_leaders() {
    let rig = Rig::start(Limits::default()).await;
    let pod = Pod::new(&rig);
    rig.publisher.lead(1);
    rig.publisher.set_token_keys(vec![[7; 32].into()]);
    let mut table = routes(2_000);
    rig.publish(1, &table);
    let program = pod.start(&rig);
    rig.until(|publisher| has(publisher, 1, 1)).await;

    let changed = route(5, 2);
    table.insert(changed.id.clone(), changed);
    table.remove(&route(7, 1).id);
    rig.publish(2, &table);
    rig.until(|publisher| has(publisher, 1, 2)).await;
    let counted = rig.publisher.counters();
    assert_eq!((counted.sent_everything, counted.sent_changes, counted.refused), (1, 1, 0));

    // The file is written within a second, and says which table it is.
    soon(async {
        while fs::metadata(pod.path("table")).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(program);
    rig.until(|publisher| publisher.proxies().is_empty()).await;
    let _program = pod.start(&rig);
    rig.publish(3, &table);
    rig.until(|publisher| has(publisher, 1, 3)).await;
    assert_eq!(rig.publisher.counters().sent_everything, 1, "a change from the kept table was enough");

    rig.publisher.resign();
    rig.publisher.lead(2);
    rig.publish(1, &table);
    rig.until(|publisher| has(publisher, 2, 1)).await;
    assert_eq!(rig.publisher.counters().refused, 0);
}

/// The proxy beside this test. It is built here when nobody has, or when its sources are newer.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/PROFILE/deps/this-test
        let test = std::env::current_exe().unwrap();
        let binary = test.parent().unwrap().with_file_name("latchkey-proxy");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let built = fs::metadata(&binary).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        if ["proxy/src", "libs/operator-link/src"].iter().any(|dir| newest(&root.join(dir)) > built) {
            build(root, &binary);
        }
        binary
    })
}

fn build(root: &Path, binary: &Path) {
    let folder = binary.parent().unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "latchkey-proxy", "--profile", profile, "--target-dir"])
        .arg(folder.parent().unwrap())
        .current_dir(root)
        .status()
        .unwrap();
    assert!(status.success(), "the proxy could not be built");
}

/// When the newest file in a folder was changed.
fn newest(folder: &Path) -> SystemTime {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { newest(&path) } else { fs::metadata(&path).unwrap().modified().unwrap() }
        })
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
