//! What follows a part that was refused: the rest of its update is passed over, and answered once. Pure.

use std::time::Duration;

use operator_link::{Position, wire};

/// Refusals in a row are answered at once, then after this, then after twice that, ...
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// ... up to this, which is less than a stream may be silent: an operator that waits for an answer may say nothing
/// meanwhile. An operator answers a refusal with everything: one whose everything is refused, too, would otherwise
/// send it as fast as the line allows.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Which update a part belongs to, and whether it is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    to: Option<Position>,
    from: Option<Position>,
    last: bool,
}

#[derive(Debug)]
struct Refused {
    update: Identity,
    why: String,
}

/// The update that is passed over, and how many were refused in a row.
#[derive(Debug, Default)]
pub(super) struct Skipping {
    refused: Option<Refused>,
    in_a_row: u32,
}

impl Skipping {
    /// Which update it is a part of.
    pub(super) fn identity(part: &wire::Update) -> Identity {
        Identity { to: part.to.map(Into::into), from: part.from.map(Into::into), last: part.last }
    }

    /// Gives the part back unless it belongs to an update that was refused.
    pub(super) fn pass(&mut self, part: wire::Update) -> Option<wire::Update> {
        let Some(refused) = &mut self.refused else { return Some(part) };
        let identity = Self::identity(&part);
        if (identity.to, identity.from) == (refused.update.to, refused.update.from) {
            refused.update.last = identity.last;
            return None;
        }
        // The rest never comes.
        self.refused = None;
        Some(part)
    }

    /// A part was refused.
    pub(super) fn refused(&mut self, update: Identity, why: String) {
        self.refused = Some(Refused { update, why });
    }

    /// The answer to the update that was refused, once its last part has come: how long to wait, and why it was.
    pub(super) fn answer(&mut self) -> Option<(Duration, String)> {
        let Refused { why, .. } = self.refused.take_if(|refused| refused.update.last)?;
        let wait = match self.in_a_row.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                FIRST_WAIT.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST_WAIT)
            }
        };
        self.in_a_row = self.in_a_row.saturating_add(1);
        Some((wait, why))
    }

    /// An update was taken.
    pub(super) fn took_one(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(to: u64, from: Option<u64>, last: bool) -> wire::Update {
        let position = |revision| wire::Position { term: 1, revision };
        wire::Update { to: Some(position(to)), from: from.map(position), last, ..wire::Update::default() }
    }

    #[test]
    fn the_rest_of_a_refused_update_is_passed_over_and_answered_once() {
        let mut skipping = Skipping::default();
        let first = skipping.pass(part(5, Some(3), false)).unwrap();
        skipping.refused(Skipping::identity(&first), "a gap".to_owned());
        assert_eq!(skipping.answer(), None, "it goes on");
        assert!(skipping.pass(part(5, Some(3), false)).is_none());
        assert_eq!(skipping.answer(), None);
        assert!(skipping.pass(part(5, Some(3), true)).is_none());
        assert_eq!(skipping.answer(), Some((Duration::ZERO, "a gap".to_owned())));
        assert!(skipping.pass(part(5, None, false)).is_some(), "everything is another update");
    }

    #[test]
    fn an_update_that_is_given_up_holds_nothing_back() {
        let mut skipping = Skipping::default();
        skipping.refused(Skipping::identity(&part(5, Some(3), false)), "a gap".to_owned());
        assert!(skipping.pass(part(6, Some(5), true)).is_some());
        assert_eq!(skipping.answer(), None);
    }

    #[test]
    fn refusals_in_a_row_are_answered_ever_later() {
        let mut skipping = Skipping::default();
        let refuse = |skipping: &mut Skipping| {
            skipping.refused(Skipping::identity(&part(5, None, true)), String::new());
            skipping.answer().unwrap().0.as_secs()
        };
        let waits: Vec<_> = (0..8).map(|_| refuse(&mut skipping)).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 15, 15, 15]);
        skipping.took_one();
        assert_eq!(refuse(&mut skipping), 0);
    }
}
