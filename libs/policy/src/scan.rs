//! The parts of a version text that both schemes share.

/// The numbers before the first word: `2023.9.0`. Zeros at the end carry no meaning and are dropped, so that
/// the derived order of slices is the order of versions (`2023.9` = `2023.9.0` < `2023.9.0.1`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Release(Box<[u64]>);

/// Takes decimal digits off the front. `None` when there is none or the number does not fit.
pub(crate) fn take_number(rest: &mut &str) -> Option<u64> {
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, tail) = rest.split_at_checked(length)?;
    let number = digits.parse().ok()?;
    *rest = tail;
    Some(number)
}

/// Takes ASCII letters off the front, maybe none.
pub(crate) fn take_letters<'a>(rest: &mut &'a str) -> &'a str {
    let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (letters, tail) = rest.split_at_checked(length).unwrap_or((rest, ""));
    *rest = tail;
    letters
}

/// Takes one of `.`, `-`, `_` off the front if it stands there.
pub(crate) fn skip_separator(rest: &mut &str) {
    if let Some(tail) = rest.strip_prefix(['.', '-', '_']) {
        *rest = tail;
    }
}

/// Takes `2023.9.0` off the front and leaves what is not a dot with a number behind it.
pub(crate) fn take_release(rest: &mut &str) -> Option<Release> {
    let mut numbers = vec![take_number(rest)?];
    while let Some(tail) = rest.strip_prefix('.')
        && tail.starts_with(|next: char| next.is_ascii_digit())
    {
        *rest = tail;
        numbers.push(take_number(rest)?);
    }
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(Release(numbers.into()))
}

/// Cuts what does not take part in the order: a leading `v`, and `+build` behind. `None` when the build part is
/// malformed.
pub(crate) fn core_of(text: &str) -> Option<&str> {
    let text = text.strip_prefix(['v', 'V']).map_or(text, |rest| rest.strip_prefix('.').unwrap_or(rest));
    let Some((core, build)) = text.split_once('+') else { return Some(text) };
    let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    build.split(['.', '-', '_']).all(part).then_some(core)
}
