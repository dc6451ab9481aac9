//! What `up` shows and `status` asks for: one document about a running system.

use std::fmt::Write as _;

use resources::{RemoteInstanceStatus, condition::Truth};
use serde::{Deserialize, Serialize};

use crate::output::harmless;

/// What a running `latchkey up` knows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Board {
    /// The folder of manifests.
    pub folder: String,
    /// Where visitors and agents arrive.
    pub listen: Vec<String>,
    /// The installation's domain.
    pub domain: String,
    /// The revision of the routes in force.
    pub revision: u64,
    /// Every instance of the installation, by name.
    pub instances: Vec<Row>,
    /// What is wrong with manifests, one line each; the last good plan goes on.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `namespace/name`.
    pub instance: String,
    /// Is its tunnel up at this moment?
    pub connected: bool,
    /// As in the resource.
    pub status: RemoteInstanceStatus,
    /// What the agent in this process hands visitors to, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetRow>,
}

/// What an agent hands visitors to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRow {
    /// As the annotation says it.
    pub address: String,
    /// Why it cannot be used or does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Board {
    /// Is every instance as it should be, and every manifest readable?
    pub fn all_ready(&self) -> bool {
        self.problems.is_empty() && self.instances.iter().all(Row::is_ready)
    }

    /// For people: a line for each instance, what to compare under it, and why it is not ready. `width` of the
    /// terminal; 0: no lines are cut.
    pub fn table(&self, width: usize) -> String {
        let mut lines =
            vec![["INSTANCE", "URL", "CONNECTED", "VERSION", "BLOCKED", "READY"].map(str::to_owned)];
        lines.extend(self.instances.iter().map(Row::cells));
        let mut widths = [0; 6];
        for cells in &lines {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        let mut below = std::iter::once(Vec::new()).chain(self.instances.iter().map(Row::lines_below));
        for cells in &lines {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            put(&mut text, line.trim_end(), width);
            for more in below.next().unwrap_or_default() {
                put(&mut text, &format!("  {more}"), width);
            }
        }
        if self.instances.is_empty() {
            put(&mut text, "  no instances: put a RemoteInstance into the folder", width);
        }
        for problem in &self.problems {
            put(&mut text, &format!("! {}", harmless(problem)), width);
        }
        text
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

impl Row {
    /// Is it as its owner wants it? The resource is ready whether or not somebody's box is switched on; where this
    /// process runs the agent itself, nothing but a tunnel and a target that answers will do.
    pub fn is_ready(&self) -> bool {
        self.ready().is_some_and(|ready| ready.status == Truth::True)
            && self.target.as_ref().is_none_or(|target| self.connected && target.problem.is_none())
    }

    fn ready(&self) -> Option<&resources::Condition> {
        self.status.conditions.iter().find(|condition| condition.kind == "Ready")
    }

    fn reason(&self) -> &str {
        self.ready().map_or("Unknown", |ready| &ready.reason)
    }

    /// The fingerprint as Chromium shows it: 64 hex digits.
    pub fn fingerprint(&self) -> Option<&str> {
        self.status.certificate.as_ref().map(|certificate| certificate.fingerprint_sha256.as_str())
    }

    fn cells(&self) -> [String; 6] {
        let Self { status, .. } = self;
        let said = |text: Option<&str>| harmless(text.filter(|text| !text.is_empty()).unwrap_or("-"));
        [
            harmless(&self.instance),
            said(status.url.as_deref()),
            if self.connected { "yes" } else { "no" }.to_owned(),
            said(status.version.as_ref().map(|version| version.effective.as_str())),
            said(Some(&status.blocked_by.join(","))),
            if self.is_ready() { "yes" } else { "no" }.to_owned(),
        ]
    }

    fn lines_below(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(fingerprint) = self.fingerprint() {
            lines.push(format!("SHA-256 {}", harmless(fingerprint)));
        }
        if let Some(ready) = self.ready().filter(|ready| ready.status != Truth::True) {
            lines.push(format!("{}: {}", harmless(&ready.reason), harmless(&ready.message)));
        }
        if let Some(TargetRow { address, problem: Some(problem) }) = &self.target {
            lines.push(format!("target {}: {}", harmless(address), harmless(problem)));
        }
        lines
    }

    /// For programs that read lines: one line, `key=value` with single spaces between, `-` where there is nothing.
    pub fn line(&self) -> String {
        let one_word = |cell: String| cell.replace(char::is_whitespace, "_");
        let [instance, url, connected, version, blocked, ready] = self.cells().map(one_word);
        let fingerprint = one_word(harmless(self.fingerprint().unwrap_or("-")));
        let target = match &self.target {
            None => "-",
            Some(TargetRow { problem: None, .. }) => "ok",
            Some(_) => "no-answer",
        };
        let reason = one_word(harmless(self.reason()));
        format!(
            "instance={instance} url={url} connected={connected} version={version} blocked={blocked} \
             fingerprint={fingerprint} ready={ready} reason={reason} target={target}"
        )
    }
}

#[cfg(test)]
mod tests {
    use resources::{
        Condition,
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
            serving().line(),
            format!(
                "instance=homes/lake url=https://lake.localhost:8443 connected=yes version=2026.11.1 blocked=- \
                 fingerprint={} ready=yes reason=Serving target=ok",
                "ab".repeat(32)
            )
        );
        assert_eq!(
            blocked().line(),
            "instance=homes/hill url=- connected=no version=- blocked=a,b fingerprint=- ready=no reason=Blocked \
             target=-"
        );
        let mut strange = serving();
        strange.status.version.as_mut().unwrap().effective = "1 2\nready=yes".to_owned();
        assert!(strange.line().contains(" version=1_2\u{fffd}ready=yes "), "{}", strange.line());
    }

    #[test]
    fn the_table_shows_what_to_compare_and_why_something_is_not_ready() {
        let board = Board {
            instances: vec![serving(), blocked()],
            problems: vec!["a.yaml:3:1: unknown field".to_owned()],
            ..Board::default()
        };
        let table = board.table(0);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("INSTANCE    URL"), "{table}");
        assert_eq!(lines[2], format!("  SHA-256 {}", "ab".repeat(32)));
        assert!(lines[3].starts_with("homes/hill  - ") && lines[3].ends_with("a,b      no"), "{table}");
        assert_eq!(lines[4], "  Blocked: is blocked\u{fffd}[2J by a");
        assert_eq!(lines[5], "! a.yaml:3:1: unknown field");
        assert!(board.table(40).lines().all(|line| line.chars().count() <= 40));
        assert!(Board::default().table(0).contains("no instances"));
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
        assert!(!row.is_ready() && row.line().ends_with("ready=no reason=Serving target=no-answer"));
        let board = Board { instances: vec![row], ..Board::default() };
        assert!(board.table(0).contains("target 127.0.0.1:1: does not answer"));
    }
}
