//! A newcomer's first minute, and the day after.

use crate::support::{
    Place, Up, fingerprint, instance, is_private, is_unknown, latchkey, page, status, text, visit,
};

#[test]
fn a_page_comes_through_under_the_certificate_that_is_printed() {
    let place = Place::new();
    place.write("hello.yaml", &page("hello"));
    let mut up = Up::start(&place);
    let row = up.ready("default/hello");
    assert_eq!(row["status"]["url"], format!("https://hello.localhost:{}", up.port));
    let seen = up.visit("hello.localhost").unwrap();
    assert_eq!(seen.fingerprint, fingerprint(&row), "what a visitor sees is what is printed");
    assert!(seen.body.contains("It works") && seen.body.contains("default/hello"), "{}", seen.body);
    assert!(
        seen.body.contains(&seen.fingerprint),
        "the page says what the browser should show: {}",
        seen.body
    );
    assert!(is_unknown(&up.visit("other.localhost")));
    for secret in ["fernet.keys", "ca/ca.key", "seed", "agents/default_hello/agent.key"] {
        assert!(is_private(&place.path("state").join(secret)), "{secret}");
    }
    up.stop();
}

#[test]
fn names_keys_and_certificates_outlive_a_restart() {
    let place = Place::new();
    // Without a label: the name comes from the seed.
    place.write("hello.yaml", &page("hello").replace("  hostname: hello\n", ""));
    let mut up = Up::start(&place);
    let port = up.port;
    let before = up.ready("default/hello");
    up.stop();
    let mut up = Up::start_on(&place, port, &[]);
    let after = up.ready("default/hello");
    assert_eq!(after["status"]["url"], before["status"]["url"]);
    assert_eq!(fingerprint(&after), fingerprint(&before));
    let url = after["status"]["url"].as_str().unwrap();
    let host = url.trim_start_matches("https://").split(':').next().unwrap();
    assert!(host.len() == "x.localhost".len() + 31, "a random label: {host}");
    assert_eq!(up.visit(host).unwrap().fingerprint, fingerprint(&after));
}

#[test]
fn status_tells_what_up_knows_and_whether_all_is_well() {
    let place = Place::new();
    place.write("hello.yaml", &page("hello"));
    let (code, _, complaint) = status(&place, "table");
    assert_eq!(code, Some(1));
    assert!(complaint.contains("start it with: latchkey up"), "{complaint}");
    let mut up = Up::start(&place);
    let row = up.ready("default/hello");
    let (code, table, _) = status(&place, "table");
    assert_eq!(code, Some(0), "{table}");
    assert!(table.starts_with("INSTANCE") && table.contains(&fingerprint(&row)), "{table}");
    let (_, json, _) = status(&place, "json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["instances"][0]["status"]["url"], row["status"]["url"]);
    let (_, yaml, _) = status(&place, "yaml");
    assert!(yaml.contains("instance: default/hello"), "{yaml}");
    place.write("broken.yaml", "kind: RemoteInstance\n");
    up.complains("broken.yaml");
    let (code, table, _) = status(&place, "table");
    assert_eq!(code, Some(3), "{table}");
    assert!(table.contains("/broken.yaml:1:7: "), "{table}");
}

#[test]
fn what_stands_in_the_way_of_a_start_is_told_with_what_to_do() {
    let place = Place::new();
    place.write("hello.yaml", &page("hello"));
    let up = Up::start(&place);
    let listen = format!("127.0.0.1:{}", up.port);
    let complaint = |args: &[&str]| {
        let output = latchkey(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        text(&output.stderr)
    };
    let (manifests, state, other) = (place.manifests(), place.state(), place.path("other"));
    let other = other.to_str().unwrap();
    let taken = complaint(&["up", &manifests, "--state", other, "--listen", &listen]);
    assert!(
        taken.contains("another program has that port") && taken.contains("--listen 127.0.0.1:"),
        "{taken}"
    );
    let twice = complaint(&["up", &manifests, "--state", &state, "--listen", "127.0.0.1:0"]);
    assert!(twice.contains("another `latchkey up` uses the state folder"), "{twice}");
    let nowhere = complaint(&["up", "/nowhere/at/all", "--state", other, "--listen", "127.0.0.1:0"]);
    assert!(nowhere.contains("/nowhere/at/all"), "{nowhere}");
}

#[test]
fn every_command_shows_an_example() {
    for command in ["up", "join", "status"] {
        let help = text(&latchkey(&[command, "--help"]).stdout);
        assert!(help.contains("Examples:") && help.contains(&format!("latchkey {command} ")), "{help}");
    }
}

#[test]
fn plain_lines_are_one_a_change() {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };
    let place = Place::new();
    place.write("hello.yaml", &page("hello"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_latchkey"))
        .args(["up", &place.manifests(), "--state", &place.state(), "--listen", "127.0.0.1:0"])
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines: Vec<String> = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).take(40) {
        let last = line.contains(" ready=yes ") && !line.contains(" fingerprint=- ");
        lines.push(line);
        if last {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        lines[0].starts_with("listening=127.0.0.1:") && lines[0].contains(" domain=localhost "),
        "{lines:?}"
    );
    for line in &lines[1..] {
        assert!(line.starts_with("instance=default/hello url="), "{line}");
    }
    for pair in lines.windows(2) {
        assert_ne!(pair[0], pair[1], "only changes are told");
    }
}

#[test]
fn the_example_of_the_first_minute_works_as_it_stands() {
    let place = Place::new();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/first-minute/hello.yaml");
    place.write("hello.yaml", &std::fs::read_to_string(example).unwrap());
    let mut up = Up::start(&place);
    let row = up.ready("default/hello");
    let seen = up.visit("hello.localhost").unwrap();
    assert!(seen.body.contains("It works"), "{}", seen.body);
    assert_eq!(seen.fingerprint, fingerprint(&row));
}

#[test]
fn whoever_watches_asks_the_admin_address() {
    let place = Place::new();
    place.write("hello.yaml", &page("hello"));
    // A port that was free a moment ago.
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut up = Up::start_on(&place, 0, &["--admin", &admin]);
    let row = up.ready("default/hello");
    let output = latchkey(&["status", "--admin", &admin, "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let board: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(fingerprint(&board["instances"][0]), fingerprint(&row));
    up.stop();
    let nobody = latchkey(&["status", "--admin", &admin]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains(&format!("latchkey up FOLDER --admin {admin}")));
}

#[test]
fn a_second_signal_ends_at_once_whoever_still_waits() {
    let place = Place::new();
    // An origin that takes its visitors in and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = "  enabled: true\n  hostname: slow\n";
    let target = silent.local_addr().unwrap().to_string();
    place.write("slow.yaml", &instance("slow", Some(&target), spec));
    let mut up = Up::start(&place);
    up.ready("default/slow");
    let port = up.port;
    let visitor = std::thread::spawn(move || visit(port, "slow.localhost").is_err());
    let (waiting, _) = loop {
        // The probe of the target connects, too, and leaves.
        let (stream, address) = silent.accept().unwrap();
        if stream.peek(&mut [0]).unwrap() > 0 {
            break (stream, address);
        }
    };
    up.signal();
    up.complains("draining");
    let start = std::time::Instant::now();
    up.signal();
    assert_eq!(up.ended().code(), Some(1));
    assert!(start.elapsed() < std::time::Duration::from_secs(2), "{:?}", start.elapsed());
    drop(waiting);
    assert!(visitor.join().unwrap(), "the visitor was cut");
}
