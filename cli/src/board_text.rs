//! The board in letters: a table for people, lines for programs.

use board::{Board, OperatorPart, Phase, ProxyRow, Role, Row, TargetRow};
use resources::condition::Truth;

use crate::output::harmless;

/// For people: a line for each instance, what to compare under it, and why it is not ready; above them, what only an
/// operator knows. `width` of the terminal; 0: no lines are cut.
pub fn table(board: &Board, width: usize) -> String {
    let mut text = String::new();
    if let Some(operator) = &board.operator {
        above(&mut text, board, operator, width);
    }
    if !board.instances.is_empty() {
        let head = ["INSTANCE", "URL", "CONNECTED", "VERSION", "BLOCKED", "READY"].map(str::to_owned);
        let rows = board.instances.iter().map(|row| (cells(row), lines_below(row)));
        columns(&mut text, head, rows.collect(), width);
    } else if board.operator.is_none() {
        let head = ["INSTANCE", "URL", "CONNECTED", "VERSION", "BLOCKED", "READY"].map(str::to_owned);
        columns(&mut text, head, Vec::new(), width);
        put(&mut text, "  no instances: put a RemoteInstance into the folder", width);
    }
    if let Some(next) = board.operator.as_ref().and_then(|operator| operator.next.as_deref()) {
        put(&mut text, &format!("  more come after {}", harmless(next)), width);
    }
    for problem in &board.problems {
        put(&mut text, &format!("! {}", harmless(problem)), width);
    }
    text
}

/// What only an operator knows: who it is, its proxies, the roll, and how many instances there are.
fn above(text: &mut String, board: &Board, operator: &OperatorPart, width: usize) {
    let OperatorPart { installation, namespace, name, version, role, told, counts, .. } = operator;
    let line = format!("installation {installation} in {namespace}, domain {}", said(Some(&board.domain)));
    put(text, &harmless(&line), width);
    put(text, &harmless(&format!("operator {name} ({version}): {told}")), width);
    if let Role::Follower { leader } = role {
        let more = leader.as_ref().map_or_else(
            || "nobody leads yet, as far as it knows".to_owned(),
            |leader| format!("{leader} leads and knows more: ask that one"),
        );
        put(text, &harmless(&more), width);
        return;
    }
    if !operator.proxies.is_empty() {
        let head = ["PROXY", "VERSION", "REVISION", "READY", "TUNNELS", "LAG"].map(str::to_owned);
        let below = |proxy: &ProxyRow| proxy.trouble.iter().map(|trouble| harmless(trouble)).collect();
        let rows = operator.proxies.iter().map(|proxy| (proxy_cells(proxy), below(proxy)));
        columns(text, head, rows.collect(), width);
    }
    if let Some(wanted) = operator.proxies_wanted.filter(|wanted| missing(operator, *wanted)) {
        put(text, &format!("! {wanted} proxies are wanted"), width);
    }
    if let Some(roll) = &operator.roll {
        let phase = match roll.phase {
            Phase::Idle => "every proxy is as it shall be".to_owned(),
            Phase::Rolling => format!("under way: {}", roll.reason),
            Phase::Paused => format!("PAUSED: {}", roll.reason),
        };
        put(text, &harmless(&format!("roll: {phase}")), width);
    }
    let reasons: Vec<String> =
        counts.not_ready.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" (not: {})", reasons.join(", ")) };
    let line = format!(
        "instances: {}, ready {}{reasons}, connected {}",
        counts.instances, counts.ready, counts.connected
    );
    put(text, &harmless(&line), width);
}

fn missing(operator: &OperatorPart, wanted: u32) -> bool {
    u32::try_from(operator.proxies.len()).is_ok_and(|there| there < wanted)
}

fn proxy_cells(proxy: &ProxyRow) -> [String; 6] {
    let is_attached = proxy.version.is_some();
    [
        harmless(&proxy.name),
        said(proxy.version.as_deref()),
        proxy.revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string()),
        yes_or_no(proxy.ready),
        if is_attached { proxy.tunnels.to_string() } else { "-".to_owned() },
        if proxy.lag_seconds > 0.0 { format!("{:.1} s", proxy.lag_seconds) } else { "-".to_owned() },
    ]
}

/// Rows under a head, each with lines that belong to it.
fn columns(text: &mut String, head: [String; 6], rows: Vec<([String; 6], Vec<String>)>, width: usize) {
    let mut widths = [0; 6];
    for cells in std::iter::once(&head).chain(rows.iter().map(|(cells, _)| cells)) {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.chars().count().max(*width);
        }
    }
    for (cells, below) in std::iter::once((head, Vec::new())).chain(rows) {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        put(text, padded.collect::<String>().trim_end(), width);
        for more in below {
            put(text, &format!("  {more}"), width);
        }
    }
}

fn put(text: &mut String, line: &str, width: usize) {
    if width > 0 && line.chars().count() > width {
        text.extend(line.chars().take(width.saturating_sub(1)));
        text.push('…');
    } else {
        text.push_str(line);
    }
    text.push('\n');
}

fn said(text: Option<&str>) -> String {
    harmless(text.filter(|text| !text.is_empty()).unwrap_or("-"))
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn cells(row: &Row) -> [String; 6] {
    let Row { status, .. } = row;
    [
        harmless(&row.instance),
        said(status.url.as_deref()),
        yes_or_no(row.connected),
        said(status.version.as_ref().map(|version| version.effective.as_str())),
        said(Some(&status.blocked_by.join(","))),
        yes_or_no(row.is_ready()),
    ]
}

fn lines_below(row: &Row) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(fingerprint) = row.fingerprint() {
        lines.push(format!("SHA-256 {}", harmless(fingerprint)));
    }
    if let Some(ready) = row.ready().filter(|ready| ready.status != Truth::True) {
        lines.push(format!("{}: {}", harmless(&ready.reason), harmless(&ready.message)));
    }
    if let Some(TargetRow { address, problem: Some(problem) }) = &row.target {
        lines.push(format!("target {}: {}", harmless(address), harmless(problem)));
    }
    lines
}

/// For programs that read lines: one line, `key=value` with single spaces between, `-` where there is nothing.
pub fn line(row: &Row) -> String {
    let one_word = |cell: String| cell.replace(char::is_whitespace, "_");
    let [instance, url, connected, version, blocked, ready] = cells(row).map(one_word);
    let fingerprint = one_word(harmless(row.fingerprint().unwrap_or("-")));
    let target = match &row.target {
        None => "-",
        Some(TargetRow { problem: None, .. }) => "ok",
        Some(_) => "no-answer",
    };
    let reason = one_word(harmless(row.ready().map_or("Unknown", |ready| &ready.reason)));
    format!(
        "instance={instance} url={url} connected={connected} version={version} blocked={blocked} \
         fingerprint={fingerprint} ready={ready} reason={reason} target={target}"
    )
}

#[cfg(test)]
mod tests {
    use resources::{
        Condition, RemoteInstanceStatus,
        remote_instance::{CertificateStatus, VersionSource, VersionStatus},
    };

    use super::*;

    fn condition(status: Truth, reason: &str, message: &str) -> Condition {
        Condition {
            kind: "Ready".to_owned().into(),
            status,
            reason: reason.to_owned().into(),
            message: message.to_owned().into(),
            last_transition_time: "2026-11-21T09:00:00Z".parse().unwrap(),
            observed_generation: Some(1),
        }
    }

    fn serving() -> Row {
        Row {
            instance: "homes/lake".to_owned(),
            connected: true,
            status: RemoteInstanceStatus {
                url: Some("https://lake.localhost:8443".to_owned()),
                version: Some(VersionStatus {
                    effective: "2026.11.1".to_owned(),
                    source: VersionSource::Declared,
                }),
                certificate: Some(CertificateStatus {
                    fingerprint_sha256: "ab".repeat(32),
                    ..CertificateStatus::default()
                }),
                conditions: vec![condition(Truth::True, "Serving", "")].into(),
                ..RemoteInstanceStatus::default()
            },
            target: Some(TargetRow { address: "page".to_owned(), problem: None }),
        }
    }

    fn blocked() -> Row {
        Row {
            instance: "homes/hill".to_owned(),
            connected: false,
            status: RemoteInstanceStatus {
                blocked_by: vec!["a".to_owned(), "b".to_owned()],
                conditions: vec![condition(Truth::False, "Blocked", "is blocked\u{1b}[2J by a")].into(),
                ..RemoteInstanceStatus::default()
            },
            target: None,
        }
    }

    #[test]
    fn lines_are_stable_and_have_one_word_a_value() {
        assert_eq!(
            line(&serving()),
            format!(
                "instance=homes/lake url=https://lake.localhost:8443 connected=yes version=2026.11.1 blocked=- \
                 fingerprint={} ready=yes reason=Serving target=ok",
                "ab".repeat(32)
            )
        );
        assert_eq!(
            line(&blocked()),
            "instance=homes/hill url=- connected=no version=- blocked=a,b fingerprint=- ready=no reason=Blocked \
             target=-"
        );
        let mut strange = serving();
        strange.status.version.as_mut().unwrap().effective = "1 2\nready=yes".to_owned();
        assert!(line(&strange).contains(" version=1_2\u{fffd}ready=yes "), "{}", line(&strange));
    }

    #[test]
    fn the_table_shows_what_to_compare_and_why_something_is_not_ready() {
        let board = Board {
            instances: vec![serving(), blocked()],
            problems: vec!["a.yaml:3:1: unknown field".to_owned()],
            ..Board::default()
        };
        let text = table(&board, 0);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("INSTANCE    URL"), "{text}");
        assert_eq!(lines[2], format!("  SHA-256 {}", "ab".repeat(32)));
        assert!(lines[3].starts_with("homes/hill  - ") && lines[3].ends_with("a,b      no"), "{text}");
        assert_eq!(lines[4], "  Blocked: is blocked\u{fffd}[2J by a");
        assert_eq!(lines[5], "! a.yaml:3:1: unknown field");
        assert!(table(&board, 40).lines().all(|line| line.chars().count() <= 40));
        assert!(table(&Board::default(), 0).contains("no instances"));
    }

    #[test]
    fn a_target_that_does_not_answer_is_not_ready() {
        let mut row = serving();
        assert!(row.is_ready());
        row.connected = false;
        assert!(!row.is_ready(), "its agent runs here and has no tunnel");
        row.connected = true;
        row.target = Some(TargetRow {
            address: "127.0.0.1:1".to_owned(),
            problem: Some("does not answer".to_owned()),
        });
        assert!(!row.is_ready() && line(&row).ends_with("ready=no reason=Serving target=no-answer"));
        let board = Board { instances: vec![row], ..Board::default() };
        assert!(table(&board, 0).contains("target 127.0.0.1:1: does not answer"));
    }
}
