//! What an owner asks for, and what there is to do about it. Pure.
//!
//! | `latchkey.dev/join` | tokens | what is done |
//! |---|---|---|
//! | absent | any | nothing |
//! | `once` | none that an agent could still use | a token; the request goes |
//! | `once` | one that nobody has used | the request goes: the Secret holds its bundle already |
//! | `reusable` | none for many, or it is void within a quarter of its life | a token; the request stays |
//! | `reusable` | one for many | nothing until that is nearly void |
//! | anything else | any | a complaint |

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use resources::{About, Timestamp};

use super::tokens::{TOKENS_ANNOTATION, Tokens};

/// Annotation of a `RemoteInstance` that asks for a bundle: `once` or `reusable`.
pub const JOIN_ANNOTATION: &str = "latchkey.dev/join";
/// Longest text of an annotation that a complaint repeats.
const MAX_SHOWN: usize = 40;

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, or nothing before that time.
    Nothing(Option<Timestamp>),
    /// A token and its bundle.
    Make { reusable: bool },
    /// The request is answered by a bundle that holds until then.
    Satisfied(Timestamp),
    /// Tell the owner what is wrong.
    Complain(String),
}

/// What of an object matters here: where it is as before, nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asked<'a> {
    /// The text of [`JOIN_ANNOTATION`].
    pub(super) request: Option<&'a str>,
    /// The text of [`TOKENS_ANNOTATION`].
    pub(super) tokens: Option<&'a str>,
}

impl<'a> From<&'a About> for Asked<'a> {
    fn from(about: &'a About) -> Self {
        let get = |name| about.annotations.get(name);
        Self { request: get(JOIN_ANNOTATION), tokens: get(TOKENS_ANNOTATION) }
    }
}

impl<'a> From<&'a ObjectMeta> for Asked<'a> {
    fn from(metadata: &'a ObjectMeta) -> Self {
        let get = |name: &str| metadata.annotations.as_ref()?.get(name).map(String::as_str);
        Self { request: get(JOIN_ANNOTATION), tokens: get(TOKENS_ANNOTATION) }
    }
}

/// What there is to do for an instance. Tokens live for `life`.
pub(super) fn step(asked: Asked<'_>, now: Timestamp, life: Duration) -> Step {
    let Some(request) = asked.request else { return Step::Nothing(None) };
    let tokens = Tokens::read(asked.tokens, now);
    match request {
        "once" => tokens.unused_until(false).map_or(Step::Make { reusable: false }, Step::Satisfied),
        "reusable" => {
            let margin = i64::try_from(life.as_secs() / 4).unwrap_or(i64::MAX);
            let renewal = tokens.unused_until(true).map(|until| until.plus_seconds(margin.saturating_neg()));
            match renewal {
                Some(at) if at > now => Step::Nothing(Some(at)),
                _ => Step::Make { reusable: true },
            }
        }
        other => {
            let shown: String = other.chars().filter(|each| !each.is_control()).take(MAX_SHOWN).collect();
            Step::Complain(format!(
                "The annotation {JOIN_ANNOTATION} is {shown:?}: write once for a bundle that lets in one agent, or reusable for \
                 one that lets in several."
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_hours(24);

    fn token(until: i64, rest: &str) -> String {
        format!(r#"[{{"sha256":"{}","expires":"{}"{rest}}}]"#, "ab".repeat(32), Timestamp(until))
    }

    #[test]
    fn every_row() {
        let now = Timestamp(1_000_000);
        let until = now.0 + 86_400;
        let used = format!(r#","usedBy":"{}""#, "cd".repeat(32));
        let many = r#","reusable":true"#;
        for (request, tokens, expected) in [
            (None, "[]".to_owned(), Step::Nothing(None)),
            (Some("once"), "[]".to_owned(), Step::Make { reusable: false }),
            (Some("once"), token(until, &used), Step::Make { reusable: false }),
            (Some("once"), token(now.0, ""), Step::Make { reusable: false }),
            (Some("once"), token(until, ""), Step::Satisfied(Timestamp(until))),
            (Some("once"), token(until, many), Step::Satisfied(Timestamp(until))),
            (Some("reusable"), "[]".to_owned(), Step::Make { reusable: true }),
            (Some("reusable"), token(until, ""), Step::Make { reusable: true }),
            (Some("reusable"), token(until, many), Step::Nothing(Some(Timestamp(until - 21_600)))),
            (Some("reusable"), token(now.0 + 21_601, many), Step::Nothing(Some(Timestamp(now.0 + 1)))),
            (Some("reusable"), token(now.0 + 21_600, many), Step::Make { reusable: true }),
        ] {
            let found = step(Asked { request, tokens: Some(&tokens) }, now, LIFE);
            assert_eq!(found, expected, "{request:?} {tokens}");
        }
        assert_eq!(step(Asked::default(), now, LIFE), Step::Nothing(None));
    }

    #[test]
    fn anything_else_is_complained_of_within_bounds() {
        for request in ["", "yes", "Once", "once ", &"x\n".repeat(5_000)] {
            let Step::Complain(text) =
                step(Asked { request: Some(request), tokens: None }, Timestamp(0), LIFE)
            else {
                panic!("{request:?} was taken");
            };
            assert!(text.contains("reusable") && text.len() < 300 && !text.contains('\n'), "{text}");
        }
    }
}
