//! `latchkey status` against an operator's admin address: what is asked, what is shown, and the exit code. The operator's own
//! end is tested with the operator; here somebody answers with its documents.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Output},
    thread,
};

use board::{Board, Counts, OperatorPart, Phase, ProxyRow, Role, Roll, Row, STATUS_PATH, Selection};
use resources::{Condition, RemoteInstanceStatus, condition::Truth};

fn latchkey(admin: SocketAddr, more: &[&str]) -> Output {
    let admin = admin.to_string();
    let arguments = ["status", "--admin", &admin].into_iter().chain(more.iter().copied());
    Command::new(env!("CARGO_BIN_EXE_latchkey")).args(arguments).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Answers every question with a board.
fn operator(answer: impl Fn(&Selection) -> Board + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap(), &answer);
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &impl Fn(&Selection) -> Board) {
    let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let path = lines[0].split(' ').nth(1).unwrap();
    let query = path.strip_prefix(STATUS_PATH).unwrap().trim_start_matches('?');
    let body = serde_json::to_string(&answer(&Selection::read(query).unwrap())).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

fn row(instance: &str, ready: bool) -> Row {
    let condition = Condition {
        kind: "Ready".to_owned().into(),
        status: if ready { Truth::True } else { Truth::False },
        reason: if ready { "Serving" } else { "Blocked" }.to_owned().into(),
        message: "is blocked by old".to_owned().into(),
        last_transition_time: "2026-11-21T09:00:00Z".parse().unwrap(),
        observed_generation: Some(1),
    };
    let status =
        RemoteInstanceStatus { conditions: vec![condition].into(), ..RemoteInstanceStatus::default() };
    Row { instance: instance.to_owned(), connected: true, status, target: None }
}

fn well() -> Board {
    let proxy = |number| ProxyRow {
        name: format!("latchkey-default-proxy-{number}"),
        ready: true,
        version: Some("0.1.0".to_owned()),
        revision: Some(17),
        tunnels: 4,
        ..ProxyRow::default()
    };
    Board {
        domain: "ui.example.com".to_owned(),
        revision: 17,
        operator: Some(OperatorPart {
            installation: "default".to_owned(),
            namespace: "latchkey".to_owned(),
            name: "latchkey-operator-0".to_owned(),
            version: "0.1.0".to_owned(),
            role: Role::Leader { term: 5 },
            ready: true,
            told: "leader of term 5: revision 17 is published".to_owned(),
            proxies_wanted: Some(2),
            proxies: vec![proxy(0), proxy(1)],
            roll: Some(Roll::default()),
            counts: Counts { instances: 3, ready: 3, connected: 3, not_ready: BTreeMap::new() },
            next: None,
        }),
        ..Board::default()
    }
}

#[test]
fn an_installation_that_is_well() {
    let output = latchkey(operator(|_| well()), &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "installation default in latchkey, domain ui.example.com",
            "operator latchkey-operator-0 (0.1.0): leader of term 5: revision 17 is published",
            "PROXY                     VERSION  REVISION  READY  TUNNELS  LAG",
            "latchkey-default-proxy-0  0.1.0    17        yes    4        -",
            "latchkey-default-proxy-1  0.1.0    17        yes    4        -",
            "roll: every proxy is as it shall be",
            "instances: 3, ready 3, connected 3",
        ]
    );
}

#[test]
fn a_paused_roll_and_what_is_not_ready_are_told_first_of_all() {
    let address = operator(|selection| {
        assert!(!selection.all, "only what is not ready");
        let mut board = well();
        board.instances = vec![row("homes/hill", false)];
        let part = board.operator.as_mut().unwrap();
        part.counts.ready = 2;
        part.counts.not_ready = [("Blocked".to_owned(), 1)].into();
        part.proxies.remove(1);
        part.proxies[0].ready = false;
        part.proxies[0].lag_seconds = 2.5;
        part.proxies[0].trouble = Some("CrashLoopBackOff".to_owned());
        part.roll = Some(Roll { phase: Phase::Paused, reason: "proxy-1 does not start".to_owned() });
        board
    });
    let output = latchkey(address, &[]);
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stdout);
    for part in [
        "no     4        2.5 s\n  CrashLoopBackOff\n",
        "! 2 proxies are wanted\n",
        "roll: PAUSED: proxy-1 does not start\n",
        "instances: 3, ready 2 (not: 1 Blocked), connected 3\n",
        "homes/hill  -    yes        -        -        no\n  Blocked: is blocked by old\n",
    ] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
    let json: Board = serde_json::from_slice(&latchkey(address, &["-o", "json"]).stdout).unwrap();
    assert_eq!(json.operator.unwrap().roll.unwrap().phase, Phase::Paused);
}

#[test]
fn a_follower_names_the_leader() {
    let address = operator(|_| {
        let mut board = well();
        let part = board.operator.as_mut().unwrap();
        part.role = Role::Follower { leader: Some("latchkey-operator-1".to_owned()) };
        board
    });
    for more in [&[][..], &["--instance", "homes/lake"]] {
        let output = latchkey(address, more);
        assert_eq!(output.status.code(), Some(3), "it cannot say that all is well: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("latchkey-operator-1 leads and knows more"), "{more:?}");
    }
}

#[test]
fn every_page_is_asked_for_and_one_instance_may_be() {
    let address = operator(|selection| {
        let mut board = well();
        let rows = (0..5).map(|number| row(&format!("homes/{number}"), true));
        let wanted = |row: &Row| {
            let is_named = selection.instance.as_ref().is_none_or(|named| row.instance == *named);
            is_named && selection.after.as_ref().is_none_or(|after| row.instance > *after)
        };
        let mut rows: Vec<Row> = rows.filter(wanted).collect();
        let more = rows.len() > 2;
        rows.truncate(2);
        board.operator.as_mut().unwrap().next = rows.last().filter(|_| more).map(|row| row.instance.clone());
        board.instances = rows;
        board
    });
    let all: Board = serde_json::from_slice(&latchkey(address, &["--all", "-o", "json"]).stdout).unwrap();
    let names: Vec<&str> = all.instances.iter().map(|row| row.instance.as_str()).collect();
    assert_eq!(names, ["homes/0", "homes/1", "homes/2", "homes/3", "homes/4"]);
    assert_eq!(all.operator.unwrap().next, None);
    let short = text(&latchkey(address, &[]).stdout);
    assert!(short.contains("more come after homes/1"), "{short}");
    let one = latchkey(address, &["--instance", "homes/3"]);
    assert_eq!(one.status.code(), Some(0));
    assert!(text(&one.stdout).contains("homes/3  ") && !text(&one.stdout).contains("homes/2"));
    let nobody = latchkey(address, &["--instance", "homes/9"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("there is no instance homes/9"));
}
