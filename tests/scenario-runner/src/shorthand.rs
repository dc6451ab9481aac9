//! Values that are written in one line, e.g. `False Blocked: Directory traversal`.

use std::fmt;

use resources::condition::Truth;
use serde::Deserialize;

use crate::file::ObjectRef;

/// A part that the text which came must contain, in any case of letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment(String);

impl Fragment {
    /// Is it there?
    pub fn is_in(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.0.to_lowercase())
    }
}

impl fmt::Display for Fragment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "...{}...", self.0)
    }
}

/// Takes `words: fragment` apart.
fn split(text: &str) -> (&str, Option<Fragment>) {
    match text.split_once(": ") {
        Some((words, fragment)) => (words.trim(), Some(Fragment(fragment.trim().to_owned()))),
        None => (text.trim(), None),
    }
}

/// Writes `words: fragment`.
fn joined(
    formatter: &mut fmt::Formatter<'_>,
    words: impl fmt::Display,
    about: Option<&Fragment>,
) -> fmt::Result {
    match about {
        Some(fragment) => write!(formatter, "{words}: {fragment}"),
        None => write!(formatter, "{words}"),
    }
}

/// `True Serving`, `False Blocked: part of the message`, or `absent`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ExpectedCondition {
    /// There is none of this kind.
    Absent,
    /// There is one.
    Is {
        /// Its status.
        status: Truth,
        /// Its reason.
        reason: String,
        /// Part of its message.
        message: Option<Fragment>,
    },
}

impl TryFrom<String> for ExpectedCondition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no condition: write its status and reason, e.g. \"True Serving\", a part of its \
                 message behind a colon, e.g. \"False Blocked: traversal\", or absent"
            )
        };
        let (words, message) = split(&text);
        if words == "absent" && message.is_none() {
            return Ok(Self::Absent);
        }
        let (status, reason) = words.split_once(' ').ok_or_else(wrong)?;
        let status = match status {
            "True" => Truth::True,
            "False" => Truth::False,
            "Unknown" => Truth::Unknown,
            _ => return Err(wrong()),
        };
        if reason.is_empty() || !reason.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(wrong());
        }
        Ok(Self::Is { status, reason: reason.to_owned(), message })
    }
}

impl fmt::Display for ExpectedCondition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => formatter.write_str("absent"),
            Self::Is { status, reason, message } => {
                joined(formatter, format_args!("{status:?} {reason}"), message.as_ref())
            }
        }
    }
}

/// `Warning homes/lake-house Blocked: part of the message`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ExpectedEvent {
    /// `Normal` or `Warning`.
    pub kind: String,
    /// About which object.
    pub about: ObjectRef,
    /// Its reason.
    pub reason: String,
    /// Part of its message.
    pub message: Option<Fragment>,
}

impl TryFrom<String> for ExpectedEvent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no event: write Normal or Warning, the object and the reason, e.g. \"Warning \
                 homes/lake-house Blocked\", and perhaps a part of the message behind a colon"
            )
        };
        let (words, message) = split(&text);
        let mut words = words.split(' ');
        let (Some(kind @ ("Normal" | "Warning")), Some(about), Some(reason), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let about = ObjectRef::try_from(about.to_owned())?;
        Ok(Self { kind: kind.to_owned(), about, reason: reason.to_owned(), message })
    }
}

impl fmt::Display for ExpectedEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(formatter, format_args!("{} {} {}", self.kind, self.about, self.reason), self.message.as_ref())
    }
}

/// `Serving`, or `Conflict: part of the message`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ExpectedState {
    /// `Serving`, `PendingVerification` or `Conflict`.
    pub state: String,
    /// Part of its message.
    pub message: Option<Fragment>,
}

impl TryFrom<String> for ExpectedState {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (state, message) = split(&text);
        if matches!(state, "Serving" | "PendingVerification" | "Conflict") {
            Ok(Self { state: state.to_owned(), message })
        } else {
            Err(format!(
                "{text:?} is no state of a hostname: write Serving, PendingVerification or Conflict, and perhaps \
                 a part of the message behind a colon"
            ))
        }
    }
}

impl fmt::Display for ExpectedState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(formatter, &self.state, self.message.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_reads_and_shows_the_same() {
        for text in ["True Serving", "Unknown NeverReported", "absent"] {
            assert_eq!(ExpectedCondition::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        let blocked = ExpectedCondition::try_from("False Blocked: see: this".to_owned()).unwrap();
        assert_eq!(blocked.to_string(), "False Blocked: ...see: this...");
        let event = ExpectedEvent::try_from("Warning homes/a Blocked: traversal".to_owned()).unwrap();
        assert_eq!(event.to_string(), "Warning homes/a Blocked: ...traversal...");
        assert!(event.message.unwrap().is_in("Directory Traversal!"));
        assert!(ExpectedState::try_from("Conflict: homes/b".to_owned()).is_ok());
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in ["Serving", "true Serving", "True", "True Two Words", "absent: x", "False Blocked:x"] {
            assert!(
                ExpectedCondition::try_from(text.to_owned()).unwrap_err().contains("True Serving"),
                "{text}"
            );
        }
        for text in
            ["homes/a Blocked", "Warning homes/a", "Bad homes/a Blocked", "Warning homes/a Not Blocked"]
        {
            assert!(ExpectedEvent::try_from(text.to_owned()).unwrap_err().contains("Warning"), "{text}");
        }
        assert!(ExpectedState::try_from("Fine".to_owned()).unwrap_err().contains("PendingVerification"));
    }
}
