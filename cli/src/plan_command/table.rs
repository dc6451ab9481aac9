//! What would change, for people.

use std::fmt::Write as _;

use super::color::{Palette, paint};
use super::difference::{Access, Change, InstanceChange, Reason};
use super::report::{BlockChange, Counts, PlanReport, Summary};
use crate::output::harmless;

/// Instances of one kind of change that are listed; the figures below count all of them.
const MOST: usize = 200;

/// The whole text.
pub(crate) fn print(report: &PlanReport, palette: &Palette) -> String {
    let mut text = String::new();
    if let Some(domain) = &report.domain {
        let _ = writeln!(text, "{}", paint(palette.heading, "Installation"));
        let line = format!("  ~ domain  {} -> {}", domain.before, domain.after);
        let _ = writeln!(text, "{}\n", paint(palette.changed, &line));
    }
    if !report.instances.is_empty() {
        chapter(&mut text, palette, "Instances", &report.instances, |text, each| {
            instance(text, each, palette);
        });
    }
    let cut_off: Vec<_> = report.instances.iter().filter(|each| !each.disconnects.is_empty()).collect();
    if !cut_off.is_empty() {
        let heading = format!("Would lose access: {}", cut_off.len());
        chapter(&mut text, palette, &heading, &cut_off, |text, each| disconnected(text, each, palette));
    }
    if !report.blocks.is_empty() {
        chapter(&mut text, palette, "Version blocks", &report.blocks, |text, each| {
            block(text, each, palette);
        });
    }
    if !report.passed_over.is_empty() {
        let kinds: Vec<_> =
            report.passed_over.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let _ = writeln!(text, "Passed over: {}\n", harmless(&kinds.join(", ")));
    }
    text.push_str(&if report.is_empty() { "No changes.\n".to_owned() } else { figures(&report.summary) });
    text
}

fn chapter<T>(
    text: &mut String,
    palette: &Palette,
    heading: &str,
    items: &[T],
    mut line: impl FnMut(&mut String, &T),
) {
    let _ = writeln!(text, "{}", paint(palette.heading, heading));
    for item in items.iter().take(MOST) {
        line(text, item);
    }
    if items.len() > MOST {
        let _ = writeln!(text, "  ... and {} more (-o json lists all)", items.len() - MOST);
    }
    text.push('\n');
}

fn instance(text: &mut String, change: &InstanceChange, palette: &Palette) {
    let (sign, style) = match change.change {
        Change::Added => ('+', palette.added),
        Change::Removed => ('-', palette.removed),
        Change::Changed => ('~', palette.changed),
    };
    let now = match (&change.change, &change.access) {
        (Change::Removed, _) => "removed".to_owned(),
        (_, Access::Open) => change.url.clone().unwrap_or_else(|| "open".to_owned()),
        (_, Access::Disabled) => "disabled".to_owned(),
        (_, Access::Blocked) => "blocked".to_owned(),
        (_, Access::Absent) => "without a route".to_owned(),
    };
    let head = harmless(&format!("  {sign} {}  {now}", change.instance));
    let _ = writeln!(text, "{}", paint(style, &head));
    if change.disconnects.is_empty() && change.access == Access::Blocked {
        for reason in &change.refused {
            let _ = writeln!(text, "      {}", harmless(&told(reason)));
        }
    }
    for member in &change.members {
        let _ = writeln!(
            text,
            "      {}",
            harmless(&format!("{}: {} -> {}", member.member, member.before, member.after))
        );
    }
    for conflict in &change.conflicts {
        let line = harmless(&format!("conflict: {conflict}"));
        let _ = writeln!(text, "      {}", paint(palette.removed, &line));
    }
}

fn disconnected(text: &mut String, change: &InstanceChange, palette: &Palette) {
    let _ = writeln!(text, "  {}", paint(palette.removed, &harmless(&change.instance)));
    for reason in &change.disconnects {
        let _ = writeln!(text, "      {}", harmless(&told(reason)));
    }
}

/// `blocked: Directory traversal (core-2021-1-4, https://...)`
fn told(reason: &Reason) -> String {
    match (&reason.block, &reason.more_info) {
        (Some(block), Some(link)) => format!("blocked: {} ({block}, {link})", reason.message),
        (Some(block), None) => format!("blocked: {} ({block})", reason.message),
        (None, _) => reason.message.clone(),
    }
}

fn block(text: &mut String, change: &BlockChange, palette: &Palette) {
    let (sign, style) = match change.change {
        Change::Added => ('+', palette.added),
        Change::Removed => ('-', palette.removed),
        Change::Changed => ('~', palette.changed),
    };
    let told = match (&change.before, &change.after) {
        (_, None) => "removed".to_owned(),
        (None, Some(after)) => counts(after),
        (Some(before), Some(after)) => format!("{}, before: {}", counts(after), counts(before)),
    };
    let _ = writeln!(text, "{}", paint(style, &harmless(&format!("  {sign} {}  {told}", change.block))));
}

fn counts(counts: &Counts) -> String {
    let Counts { warns, matched, blocked, accepted } = counts;
    let verb = if *warns { "would disconnect" } else { "blocks" };
    format!("matches {matched}, {verb} {blocked}, accepted by {accepted}")
}

fn figures(summary: &Summary) -> String {
    let Summary { added, changed, removed, disconnected, conflicts } = summary;
    let mut text =
        format!("{added} added, {changed} changed, {removed} removed; {disconnected} would lose access");
    if *conflicts > 0 {
        let _ = write!(text, "; {conflicts} in conflict");
    }
    text.push('\n');
    text
}
