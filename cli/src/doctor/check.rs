//! What a check found, and how a list of findings is told.

use std::fmt::Write;

use clap::ValueEnum;
use serde::Serialize;

use crate::output::harmless;

/// How bad it is. Declared from good to bad: the worst of many is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Could not be looked at, or does not matter here.
    Skipped,
    /// As it should be.
    Ok,
    /// Works, or may work; somebody should know.
    Warn,
    /// Does not work.
    Fail,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Skipped => "skip",
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Check {
    fn new(verdict: Verdict, name: &str, found: impl AsRef<str>, next: Option<String>) -> Self {
        Self { name: name.to_owned(), verdict, found: harmless(found.as_ref()), next }
    }

    /// As it should be.
    pub fn ok(name: &str, found: impl AsRef<str>) -> Self {
        Self::new(Verdict::Ok, name, found, None)
    }

    /// Works, and somebody should know.
    pub fn warn(name: &str, found: impl AsRef<str>, next: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, name, found, Some(next.into()))
    }

    /// Does not work.
    pub fn fail(name: &str, found: impl AsRef<str>, next: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, name, found, Some(next.into()))
    }

    /// Not looked at, and why.
    pub fn skipped(name: &str, why: impl AsRef<str>) -> Self {
        Self::new(Verdict::Skipped, name, why, None)
    }
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// The installation's domain.
    pub domain: String,
    /// The worst of all.
    pub verdict: Verdict,
    /// One by one.
    pub checks: Vec<Check>,
}

/// How findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Findings {
    /// Of these checks.
    pub fn new(domain: &str, checks: Vec<Check>) -> Self {
        let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Skipped);
        Self { domain: domain.to_owned(), verdict, checks }
    }

    /// As text.
    pub fn written(&self, form: Form) -> String {
        match form {
            Form::Json => serde_json::to_string_pretty(self).unwrap_or_default() + "\n",
            Form::Table => self.table(),
        }
    }

    fn table(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        let mut text = String::new();
        for Check { name, verdict, found, next } in &self.checks {
            let _ = writeln!(text, "{:<4}  {name:<width$}  {found}", verdict.word());
            if let Some(next) = next {
                let _ = writeln!(text, "{:<4}  {:<width$}  -> {next}", "", "");
            }
        }
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let (fails, warns, skipped) = (count(Verdict::Fail), count(Verdict::Warn), count(Verdict::Skipped));
        let _ = writeln!(
            text,
            "\n{}: {} ok, {warns} to know of, {fails} failed, {skipped} skipped",
            self.domain,
            count(Verdict::Ok)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_verdict() {
        let verdict = |checks: &[Check]| Findings::new("d", checks.to_vec()).verdict;
        let (ok, skipped) = (Check::ok("a", "x"), Check::skipped("b", "x"));
        let (warn, fail) = (Check::warn("c", "x", "y"), Check::fail("d", "x", "y"));
        assert_eq!(verdict(&[]), Verdict::Skipped);
        assert_eq!(verdict(&[ok.clone(), skipped.clone()]), Verdict::Ok);
        assert_eq!(verdict(&[warn.clone(), ok.clone()]), Verdict::Warn);
        assert_eq!(verdict(&[warn, fail, ok, skipped]), Verdict::Fail);
    }

    #[test]
    fn a_finding_cannot_move_the_cursor() {
        let check = Check::ok("names", "\u{1b}[2Jnothing\nto see");
        assert!(!check.found.chars().any(char::is_control), "{:?}", check.found);
    }
}
