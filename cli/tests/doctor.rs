//! `latchkey doctor` on loopback: a stand-in for a name server, real sockets for the rest.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests may")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// What the stand-in says.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Answers,
    Fails,
    Silent,
}

/// NOT a real name server: it answers from a list, where `*.` stands for one label, and knows no zones.
fn name_server(mood: Mood, records: &[(&str, RData)]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let records: Vec<_> = records.iter().map(|(name, data)| ((*name).to_owned(), data.clone())).collect();
    std::thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let mut message = Message::from_vec(&packet[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            message.metadata.recursion_available = true;
            match mood {
                Mood::Silent => continue,
                Mood::Fails => message.metadata.response_code = ResponseCode::ServFail,
                Mood::Answers => answer(&mut message, &records),
            }
            socket.send_to(&message.to_vec().unwrap(), from).unwrap();
        }
    });
    address
}

fn answer(message: &mut Message, records: &[(String, RData)]) {
    let query = message.queries[0].clone();
    let mut name = query.name().to_ascii().trim_end_matches('.').to_lowercase();
    // A CNAME is followed, as a resolver does.
    for _ in 0..4 {
        let below = name.split_once('.').map(|(_, above)| format!("*.{above}")).unwrap_or_default();
        let exact = records.iter().any(|(each, _)| *each == name);
        let key = if exact { name.clone() } else { below };
        let mut next = None;
        for (_, data) in records.iter().filter(|(each, _)| *each == key) {
            if data.record_type() == query.query_type() || data.record_type() == RecordType::CNAME {
                message.add_answer(Record::from_rdata(
                    Name::from_ascii(format!("{name}.")).unwrap(),
                    60,
                    data.clone(),
                ));
            }
            if let RData::CNAME(target) = data {
                next = Some(target.0.to_ascii().trim_end_matches('.').to_owned());
            }
        }
        match next {
            Some(target) => name = target,
            None => break,
        }
    }
    if message.answers.is_empty() {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
}

fn a(address: &str) -> RData {
    RData::A(A(address.parse().unwrap()))
}

fn cname(target: &str) -> RData {
    RData::CNAME(CNAME(Name::from_ascii(format!("{target}.")).unwrap()))
}

fn caa(issuer: &str) -> RData {
    RData::CAA(CAA::new_issue(false, Some(Name::from_ascii(issuer).unwrap()), Vec::new()))
}

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_latchkey"))
        .arg("doctor")
        .args(arguments)
        .env("XDG_STATE_HOME", std::env::temp_dir().join("latchkey-doctor-test-nothing"))
        .output()
        .unwrap()
}

/// Verdict and words of each finding, by name; two of one name are joined.
fn findings(output: &Output) -> BTreeMap<String, (String, String)> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let told: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {output:?}"));
    let mut all = BTreeMap::<String, (String, String)>::new();
    for check in told["checks"].as_array().unwrap() {
        let word = |member: &str| check[member].as_str().unwrap_or_default().to_owned();
        let (verdict, found) = all.entry(word("name")).or_default();
        verdict.push_str(&word("verdict"));
        let _ = writeln!(found, "{} -> {}", word("found"), word("next"));
    }
    all
}

fn expect(all: &BTreeMap<String, (String, String)>, name: &str, verdict: &str, words: &str) {
    let (said, found) = all.get(name).unwrap_or_else(|| panic!("no {name} in {all:#?}"));
    assert_eq!(said, verdict, "{name}: {found}");
    assert!(found.contains(words), "{name}: {words} in {found}");
}

#[test]
fn records_that_are_right_are_ok() {
    let records = [
        ("*.ui.example.com", cname("proxy.example.com")),
        ("proxy.example.com", a("127.0.0.1")),
        ("example.com", caa("letsencrypt.org")),
    ];
    let server = name_server(Mood::Answers, &records);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = doctor(&[
        "--domain",
        "ui.example.com",
        "--name-server",
        &server.to_string(),
        "--connect",
        &listener.local_addr().unwrap().to_string(),
        "-o",
        "json",
    ]);
    let all = findings(&output);
    expect(&all, "dns domain", "ok", "needs none");
    expect(&all, "dns wildcard", "ok", "127.0.0.1 (CNAME proxy.example.com)");
    expect(&all, "dns connect", "ok", "127.0.0.1");
    expect(&all, "dns CAA", "ok", "the records at example.com allow letsencrypt.org");
    expect(&all, "CA a week", "ok", "all names below example.com share 50");
    let port = format!("port {}", listener.local_addr().unwrap().port());
    expect(&all, &port, "ok", "is open");
}

#[test]
fn records_that_are_missing_or_forbid_are_told_with_what_to_do() {
    let server = name_server(
        Mood::Answers,
        &[("ui.example.com", a("127.0.0.1")), ("ui.example.com", caa("another.example"))],
    );
    let arguments = ["--domain", "ui.example.com", "--name-server", &server.to_string(), "-o", "json"];
    let output = doctor(&arguments);
    let all = findings(&output);
    assert_eq!(output.status.code(), Some(1));
    expect(&all, "dns domain", "ok", "127.0.0.1");
    expect(&all, "dns wildcard", "fail", "Make a record *.ui.example.com");
    expect(&all, "dns connect", "fail", "no agent finds the proxy");
    expect(&all, "dns CAA", "fail", "let another.example issue, not letsencrypt.org");
    expect(&all, "session API", "skipped", "no address");
}

#[test]
fn no_answer_is_not_taken_for_no_record() {
    for mood in [Mood::Fails, Mood::Silent] {
        let server = name_server(mood, &[]);
        let begin = Instant::now();
        let arguments = ["--domain", "ui.example.com", "--name-server", &server.to_string(), "-o", "json"];
        let all = findings(&doctor(&arguments));
        for name in ["dns domain", "dns wildcard", "dns connect", "dns CAA"] {
            expect(&all, name, "fail", "no answer from DNS");
        }
        assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
    }
}

#[test]
fn a_closed_port_and_a_domain_of_this_machine() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = doctor(&["--domain", "localhost", "--connect", &closed.to_string()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains(&format!("FAIL  port {}", closed.port())), "{text}");
    assert!(text.contains("-> Is the proxy running"), "{text}");
    assert!(text.contains("no public CA issues for names below localhost"), "{text}");
}

#[test]
fn a_folder_tells_its_domain_its_size_and_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, state) = (dir.path().join("fleet"), dir.path().join("state"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::create_dir_all(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    write_fleet(&folder, 60);
    let server = name_server(Mood::Answers, &[("*.ui.example.com", a("127.0.0.1"))]);
    let output = doctor(&[
        folder.to_str().unwrap(),
        "--state",
        state.to_str().unwrap(),
        "--name-server",
        &server.to_string(),
        "--connect",
        "127.0.0.1:1",
        "-o",
        "json",
    ]);
    let all = findings(&output);
    expect(&all, "manifests", "ok", "60 RemoteInstance");
    expect(&all, "CA a week", "warn", "60 instances take 2 weeks");
    expect(&all, "CA accounts", "warn", "60 instances make an account each");
    expect(&all, "dns CAA", "warn", "every CA of the world");
    expect(&all, "state folder", "fail", "has mode 755");
}

fn write_fleet(folder: &Path, count: usize) {
    let mut text = "apiVersion: latchkey.dev/v1alpha1\nkind: Installation\nmetadata: {name: default}\nspec: \
                    {domain: ui.example.com}\n"
        .to_owned();
    for number in 0..count {
        let _ = write!(
            text,
            "---\napiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {{name: house-{number}}}\n\
             spec: {{enabled: true}}\n"
        );
    }
    std::fs::write(folder.join("fleet.yaml"), text).unwrap();
}
