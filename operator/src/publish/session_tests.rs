use std::time::Duration;

use zeroize::Zeroizing;

use super::*;
use crate::publish::history::{History, Routes};

/// A stream, and what is published meanwhile.
struct Story {
    session: Session,
    standing: Standing,
    now: Instant,
    limits: Limits,
}

impl Story {
    fn new(term: Option<u64>, has: Option<Position>) -> Self {
        let standing = Standing { term, ..Standing::default() };
        Self { session: Session::begin(has), standing, now: Instant::now(), limits: Limits::default() }
    }

    fn publish(&mut self, revision: u64) {
        self.publish_for("ui.example.com", revision);
    }

    fn publish_for(&mut self, domain: &str, revision: u64) {
        let position = Position { term: self.standing.term.unwrap(), revision };
        let mut history = History::clone(&self.standing.history);
        let domain = domain.parse().unwrap();
        let table = Published { position, domain, routes: Routes::default(), at: self.now, step: None };
        assert!(history.push(table, &self.limits));
        self.standing.history = Arc::new(history);
    }

    fn step(&mut self) -> String {
        self.step_when(false)
    }

    fn step_when(&mut self, full: bool) -> String {
        match self.session.next(&self.standing, full, self.now, &self.limits) {
            Step::NotLeader => "not leader".to_owned(),
            Step::Welcome(term) => format!("welcome {term}"),
            Step::Keys(keys) => format!("{} keys", keys.0.len()),
            Step::Update(None, to) => format!("everything to {}", to.position),
            Step::Update(Some(from), to) => format!("{} to {}", from.position, to.position),
            Step::HangUp => "hang up".to_owned(),
            Step::Wait(None) => "wait".to_owned(),
            Step::Wait(Some(at)) => format!("wait {}", at.duration_since(self.now).as_secs()),
        }
    }

    fn answer(&mut self, term: u64, revision: u64, refused: bool) -> bool {
        let position = Position { term, revision };
        self.session.answered(Some(position), refused, self.now, &self.limits).is_some()
    }
}

#[test]
fn welcome_keys_everything_then_what_changed() {
    let mut story = Story::new(Some(3), None);
    assert_eq!([story.step(), story.step()], ["welcome 3", "wait"]);
    story.standing.keys = Some(Arc::new(TokenKeys(vec![Zeroizing::new([1; 32]); 2])));
    assert_eq!([story.step(), story.step()], ["2 keys", "wait"]);
    story.publish(1);
    assert_eq!([story.step(), story.step()], ["everything to 3.1", "wait 60"]);
    // What comes while the proxy is busy is told in one.
    for revision in 2..=5 {
        story.publish(revision);
        assert_eq!(story.step(), "wait 60");
    }
    assert!(story.answer(3, 1, false));
    assert_eq!(story.step(), "3.1 to 3.5");
    assert!(!story.answer(3, 1, false), "an answer to something else");
    assert!(story.answer(3, 5, false));
    assert_eq!(story.step(), "wait");
}

#[test]
fn a_table_that_is_known_is_gone_on_from() {
    for (has, first) in [(3, "3.3 to 3.4"), (4, "wait"), (9, "everything to 3.4")] {
        let mut story = Story::new(Some(3), Some(Position { term: 3, revision: has }));
        story.publish(3);
        story.publish(4);
        assert_eq!([story.step(), story.step()], ["welcome 3", first]);
    }
    // Of another leader's tables nothing is known.
    let mut story = Story::new(Some(3), Some(Position { term: 2, revision: 3 }));
    story.publish(3);
    assert_eq!([story.step(), story.step()], ["welcome 3", "everything to 3.3"]);
}

#[test]
fn a_follower_says_so_once_and_welcomes_when_it_leads() {
    let mut story = Story::new(None, None);
    assert_eq!([story.step(), story.step()], ["not leader", "wait"]);
    story.standing.term = Some(8);
    story.publish(1);
    assert_eq!([story.step(), story.step()], ["welcome 8", "everything to 8.1"]);
    story.standing.term = None;
    assert_eq!([story.step(), story.step()], ["not leader", "wait"]);
}

#[test]
fn who_refuses_gets_everything_but_not_over_and_over() {
    let mut story = Story::new(Some(1), Some(Position { term: 1, revision: 1 }));
    story.publish(1);
    story.publish(2);
    assert_eq!([story.step(), story.step()], ["welcome 1", "1.1 to 1.2"]);
    assert!(!story.answer(1, 1, true));
    assert_eq!(story.step(), "everything to 1.2");
    assert!(!story.answer(1, 1, true));
    story.publish(3);
    assert_eq!(story.step(), "wait 5");
    story.now += Duration::from_secs(5);
    assert_eq!(story.step(), "everything to 1.3");
    assert!(story.answer(1, 3, false));
    assert_eq!(story.step(), "wait");
}

#[test]
fn who_never_answers_is_hung_up_on() {
    let mut story = Story::new(Some(1), None);
    story.publish(1);
    assert_eq!([story.step(), story.step()], ["welcome 1", "everything to 1.1"]);
    story.now += Duration::from_secs(59);
    assert_eq!(story.step(), "wait 1");
    story.now += Duration::from_secs(1);
    assert_eq!(story.step(), "hang up");
}

#[test]
fn a_stream_that_is_full_gets_everything() {
    let mut story = Story::new(Some(1), Some(Position { term: 1, revision: 1 }));
    story.publish(1);
    story.publish(2);
    assert_eq!([story.step(), story.step_when(true)], ["welcome 1", "everything to 1.2"]);
}

#[test]
fn another_domain_is_told_even_when_no_route_changed() {
    let mut story = Story::new(Some(1), None);
    story.publish(1);
    assert_eq!([story.step(), story.step()], ["welcome 1", "everything to 1.1"]);
    assert!(story.answer(1, 1, false));
    story.publish_for("other.example.com", 1);
    assert_eq!(story.step(), "everything to 1.1");
    assert!(story.answer(1, 1, false));
    assert_eq!(story.step(), "wait");
}
