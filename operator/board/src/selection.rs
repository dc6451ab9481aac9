//! Which instances are asked for: the query after [`crate::STATUS_PATH`] at an operator. There may be a hundred thousand.

/// Rows of one answer, unless asked otherwise.
pub const ROWS: usize = 50;
/// Rows of one answer, at most.
pub const MOST_ROWS: usize = 1_000;

/// Which rows of instances to tell. Counts are always of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Only this one: `namespace/name`.
    pub instance: Option<String>,
    /// Those that are ready, too.
    pub all: bool,
    /// Only those that come after this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

impl Default for Selection {
    fn default() -> Self {
        Self { instance: None, all: false, after: None, limit: ROWS }
    }
}

/// A query that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectionError(String);

impl std::fmt::Display for SelectionError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for SelectionError {}

impl Selection {
    /// Reads a query.
    pub fn read(query: &str) -> Result<Self, SelectionError> {
        let mut selection = Self::default();
        // Names of objects have no letter that would have to be escaped, but for the slash, which need not be.
        let name = |text: &str| Some(text.replace("%2F", "/").replace("%2f", "/"));
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=').unwrap_or((part, "")) {
                ("instance", text) => selection.instance = name(text),
                ("after", text) => selection.after = name(text),
                ("all", "" | "true") => selection.all = true,
                ("limit", text) => {
                    let limit = text.parse().ok().filter(|limit| (1..=MOST_ROWS).contains(limit));
                    let wrong = || SelectionError(format!("limit is a number from 1 to {MOST_ROWS}"));
                    selection.limit = limit.ok_or_else(wrong)?;
                }
                _ => {
                    return Err(SelectionError(
                        "only instance=, all, after= and limit= are known here".to_owned(),
                    ));
                }
            }
        }
        Ok(selection)
    }

    /// As a query.
    pub fn query(&self) -> String {
        let mut parts = vec![format!("limit={}", self.limit)];
        parts.extend(self.instance.iter().map(|instance| format!("instance={instance}")));
        parts.extend(self.after.iter().map(|after| format!("after={after}")));
        if self.all {
            parts.push("all".to_owned());
        }
        parts.join("&")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_comes_back_as_it_was() {
        for selection in [
            Selection::default(),
            Selection { all: true, after: Some("homes/lake".to_owned()), limit: 7, instance: None },
            Selection { instance: Some("homes/lake".to_owned()), ..Selection::default() },
        ] {
            assert_eq!(Selection::read(&selection.query()), Ok(selection));
        }
        assert_eq!(Selection::read(""), Ok(Selection::default()));
        let escaped = Selection::read("instance=homes%2Flake").unwrap();
        assert_eq!(escaped.instance.as_deref(), Some("homes/lake"));
        for bad in ["limit=0", "limit=1001", "limit=x", "everything", "all=no"] {
            assert!(Selection::read(bad).is_err(), "{bad}");
        }
    }
}
