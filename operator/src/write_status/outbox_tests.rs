//! Which statuses are written, when, and how often.

use proptest::prelude::*;
use resources::{About, Observed};
use serde_json::json;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u8) -> InstanceId {
    format!("homes/lake-{number}").parse().unwrap()
}

fn subject(number: u8) -> Subject {
    Subject::Instance(id(number))
}

fn status(text: &str) -> Arc<RemoteInstanceStatus> {
    Arc::new(RemoteInstanceStatus { url: Some(text.to_owned()), ..RemoteInstanceStatus::default() })
}

fn told(text: &str, revision: u64) -> Told {
    Told { digest: (!text.is_empty()).then(|| status(text).digest()), revision }
}

/// An API server with its watch, and an outbox that writes to it.
struct World {
    outbox: Outbox,
    now: Instant,
    revision: u64,
    wanted: BTreeMap<InstanceId, Arc<RemoteInstanceStatus>>,
    earlier: Arc<[Subject]>,
    /// What the API server has.
    stored: BTreeMap<u8, Told>,
    /// What the watch has shown of it.
    shown: Objects,
    writes: Vec<u8>,
}

impl World {
    fn new(most: usize) -> Self {
        Self {
            outbox: Outbox::new(most),
            now: Instant::now(),
            revision: 0,
            wanted: BTreeMap::new(),
            earlier: Arc::default(),
            stored: BTreeMap::new(),
            shown: Objects::default(),
            writes: Vec::new(),
        }
    }

    /// Somebody writes an object's status, or the object with an empty one.
    fn store(&mut self, number: u8, text: &str) {
        self.revision += 1;
        self.stored.insert(number, told(text, self.revision));
    }

    /// The watch catches up with one object.
    fn show(&mut self, number: u8) {
        if let Some(told) = self.stored.get(&number) {
            let object = Observed::of(About::default(), &json!({}), None);
            self.shown.instances.insert(id(number), Arc::new(object));
            self.shown.instances_told.insert(id(number), *told);
        } else {
            self.shown.instances.remove(&id(number));
            self.shown.instances_told.remove(&id(number));
        }
        self.offer();
    }

    fn want(&mut self, number: u8, text: &str) {
        self.wanted.insert(id(number), status(text));
        self.offer();
    }

    fn offer(&mut self) {
        let instances = Ordered::of(self.wanted.clone());
        let wanted = Wanted { instances, earlier: Arc::clone(&self.earlier), ..Wanted::default() };
        self.outbox.offer(wanted, self.shown.clone(), self.now);
    }

    fn next(&mut self) -> Option<(u8, Option<Digest>)> {
        let letter = self.outbox.next(self.now)?;
        let Subject::Instance(id) = &letter.subject else { panic!("no instance") };
        Some((id.as_str().rsplit('-').next().unwrap().parse().unwrap(), letter.status.digest()))
    }

    /// A letter reaches the API server, which changes nothing where nothing differs.
    fn deliver(&mut self, (number, digest): (u8, Option<Digest>)) -> Landing {
        self.writes.push(number);
        let Some(stored) = self.stored.get_mut(&number) else { return Landing::Gone };
        // What another installation told stays when ours is taken back.
        let theirs = [told("theirs", 0).digest, told("theirs too", 0).digest].contains(&stored.digest);
        if stored.digest != digest && !(theirs && digest.is_none()) {
            self.revision += 1;
            *stored = Told { digest, revision: self.revision };
        }
        Landing::Written(*stored)
    }

    /// Everything that has its turn is written.
    fn flush(&mut self) -> usize {
        let mut count = 0;
        while let Some(letter) = self.next() {
            let landing = self.deliver(letter);
            self.outbox.landed(subject(letter.0), landing, self.now);
            count += 1;
            assert!(count < 10_000, "it writes for ever");
        }
        count
    }
}

#[test]
fn what_changed_alone_does_not_wait_behind_a_fleet() {
    let mut world = World::new(1_000);
    for number in 0..200 {
        world.store(number, "");
        world.show(number);
    }
    // A version block does this.
    world.wanted.extend((0..150).map(|number| (id(number), status("blocked"))));
    world.offer();
    assert_eq!(world.next().map(|(number, _)| number), Some(0));
    world.want(199, "edited");
    world.want(140, "edited");
    let next: Vec<u8> = (0..3).map(|_| world.next().unwrap().0).collect();
    assert!(next.contains(&199) && next.contains(&140), "{next:?}");
    assert_eq!(world.outbox.waiting(), 147, "whoever waited twice has one turn");
    while let Some((number, digest)) = world.next() {
        assert_ne!(number, 140);
        assert_eq!(digest, Some(status("blocked").digest()));
    }
    assert_eq!(world.outbox.flying(), 151);
}

#[test]
fn what_differs_is_written_once_and_what_does_not_never() {
    let mut world = World::new(10);
    for (number, text) in [(1, ""), (2, "same"), (3, "old")] {
        world.store(number, text);
        world.show(number);
    }
    for (number, text) in [(1, "new"), (2, "same"), (3, "new")] {
        world.want(number, text);
    }
    assert_eq!(world.flush(), 2);
    // Offered again before the watch has shown it, while it shows it, and afterwards.
    world.offer();
    assert_eq!(world.flush(), 0);
    for number in [1, 2, 3] {
        world.show(number);
        assert_eq!(world.flush(), 0);
    }
    world.outbox.compare_all(world.now);
    assert_eq!(world.flush(), 0);
    assert_eq!(world.writes, [1, 3]);
    assert!(world.outbox.written.is_empty() && world.outbox.held.is_empty());
}

#[test]
fn the_newest_is_written_and_an_object_waits_once() {
    let mut world = World::new(10);
    world.store(1, "");
    world.show(1);
    for text in ["one", "two", "three"] {
        world.want(1, text);
    }
    assert_eq!(world.outbox.waiting(), 1);
    let letter = world.next().unwrap();
    assert_eq!(letter.1, Some(status("three").digest()));
    // Wanted otherwise while it is on its way: written afterwards, never beside it.
    world.want(1, "four");
    assert_eq!(world.next(), None);
    let landing = world.deliver(letter);
    world.outbox.landed(subject(1), landing, world.now);
    assert_eq!(world.next().unwrap().1, Some(status("four").digest()));
}

#[test]
fn what_is_wanted_no_more_is_not_written() {
    let mut world = World::new(10);
    world.store(1, "a");
    world.show(1);
    world.want(1, "b");
    world.want(1, "a");
    assert_eq!(world.flush(), 0);
}

#[test]
fn what_was_told_is_taken_back_once_when_the_object_is_served_no_more() {
    let mut world = World::new(10);
    for (number, text) in [(1, "a"), (2, "a"), (3, "")] {
        world.store(number, text);
        world.show(number);
    }
    // One that the API server has, one that is on its way to become another, one of which nothing was written.
    world.want(1, "a");
    world.want(2, "b");
    let letter = world.next().unwrap();
    world.want(3, "c");
    world.wanted.clear();
    world.offer();
    assert_eq!(world.flush(), 1);
    let landing = world.deliver(letter);
    world.outbox.landed(subject(2), landing, world.now);
    assert_eq!(world.flush(), 1);
    assert!(world.stored.values().all(|stored| stored.digest.is_none()), "{:?}", world.stored);
    for number in [1, 2, 3] {
        world.show(number);
    }
    world.outbox.compare_all(world.now);
    assert_eq!(world.flush(), 0);
    // From here on it is another installation's.
    world.store(1, "theirs");
    world.show(1);
    assert_eq!(world.flush(), 0);
    assert!(world.outbox.leaving.is_empty() && world.outbox.written.is_empty());
}

#[test]
fn what_another_installation_told_meanwhile_stays_and_is_not_asked_for_again() {
    let mut world = World::new(10);
    world.store(1, "a");
    world.show(1);
    world.want(1, "a");
    world.store(1, "theirs");
    world.wanted.clear();
    world.offer();
    assert_eq!(world.flush(), 1);
    assert_eq!(world.stored[&1].digest, told("theirs", 0).digest);
    world.show(1);
    world.store(1, "theirs too");
    world.show(1);
    world.outbox.compare_all(world.now);
    assert_eq!(world.flush(), 0);
}

#[test]
fn a_leader_takes_back_what_the_one_before_told_of_objects_served_no_more() {
    let mut world = World::new(10);
    for number in [1, 2, 3] {
        world.store(number, "a");
        world.show(number);
    }
    // Nothing is known of what is served before the first plan.
    assert_eq!(world.flush(), 0);
    world.earlier = [1, 2, 9].map(subject).into();
    world.want(1, "a");
    assert_eq!(world.flush(), 1);
    assert_eq!(world.writes, [2], "not what is served, not what was never ours, not what is gone");
    world.show(2);
    world.offer();
    assert_eq!(world.flush(), 0);
}

#[test]
fn what_could_not_be_taken_back_is_tried_again_unless_it_is_served_again() {
    let mut world = World::new(10);
    for number in [1, 2, 3] {
        world.store(number, "a");
        world.show(number);
        world.want(number, "a");
    }
    world.wanted.clear();
    world.offer();
    for landing in [Landing::Refused, Landing::Later, Landing::Refused] {
        let (number, _) = world.next().unwrap();
        world.outbox.landed(subject(number), landing, world.now);
    }
    world.want(1, "a");
    assert_eq!(world.flush(), 1);
    world.now = world.outbox.next_release().unwrap();
    assert_eq!(world.flush(), 1);
    assert_eq!(world.writes, [2, 3]);
    assert_eq!(world.stored[&1].digest, told("a", 0).digest);
    for number in [1, 2, 3] {
        world.show(number);
    }
    world.now += Duration::from_hours(24);
    assert_eq!(world.flush(), 0);
    assert!(world.outbox.leaving.is_empty() && world.outbox.held_until.is_empty());
}

#[test]
fn nothing_is_written_for_an_object_that_is_not_there() {
    let mut world = World::new(10);
    world.want(1, "a");
    assert_eq!(world.flush(), 0);
    world.store(1, "");
    world.show(1);
    assert_eq!(world.flush(), 1);
    // Deleted, and the watch has not shown it yet.
    world.stored.remove(&1);
    world.want(1, "b");
    assert_eq!(world.flush(), 1);
    world.offer();
    assert_eq!(world.flush(), 0, "it was told that it is gone");
    world.show(1);
    assert_eq!(world.flush(), 0);
    assert!(world.outbox.held.is_empty() && world.outbox.held_until.is_empty());
    // It comes again.
    world.store(1, "");
    world.show(1);
    assert_eq!(world.flush(), 1);
}

#[test]
fn two_that_want_different_statuses_write_ever_more_seldom() {
    let mut world = World::new(10);
    world.store(1, "");
    world.show(1);
    world.want(1, "ours");
    world.flush();
    world.show(1);
    let began = world.now;
    // The other answers at once.
    while world.now < began + Duration::from_hours(2) {
        world.store(1, "theirs");
        world.show(1);
        let release = world.outbox.next_release().unwrap();
        assert!(release > world.now);
        world.now = release;
        assert_eq!(world.flush(), 1);
        world.show(1);
    }
    assert!(world.writes.len() < 30, "{} writes in two hours", world.writes.len());
    // Another status is news, and sent at once.
    world.want(1, "ours anew");
    assert_eq!(world.flush(), 1);
}

#[test]
fn what_the_api_server_makes_something_else_of_is_not_sent_again() {
    let mut world = World::new(10);
    world.store(1, "");
    world.show(1);
    world.want(1, "ours");
    let letter = world.next().unwrap();
    world.store(1, "ours, and a condition of somebody else");
    let made = Landing::Written(world.stored[&1]);
    world.outbox.landed(subject(letter.0), made, world.now);
    assert_eq!(world.flush(), 0);
    world.show(1);
    assert_eq!(world.flush(), 0);
    world.outbox.compare_all(world.now);
    assert_eq!(world.flush(), 0);
    world.want(1, "other");
    assert_eq!(world.flush(), 1);
}

#[test]
fn a_refused_one_waits_until_another_is_wanted() {
    let mut world = World::new(10);
    world.store(1, "");
    world.show(1);
    world.want(1, "bad");
    let mut tries = 0;
    let began = world.now;
    while world.now < began + Duration::from_hours(24) {
        while world.next().is_some() {
            tries += 1;
            world.outbox.landed(subject(1), Landing::Refused, world.now);
        }
        world.now = world.outbox.next_release().unwrap();
    }
    assert!((48..60).contains(&tries), "{tries} in a day");
    world.want(1, "good");
    assert_eq!(world.flush(), 1);
}

#[test]
fn when_nobody_is_taken_everybody_waits_and_nobody_is_forgotten() {
    let mut world = World::new(10);
    for number in [1, 2] {
        world.store(number, "");
        world.show(number);
        world.want(number, "new");
    }
    let (number, _) = world.next().unwrap();
    world.outbox.landed(subject(number), Landing::Later, world.now);
    assert_eq!((number, world.outbox.waiting(), world.outbox.flying()), (1, 2, 0));
    assert_eq!(world.flush(), 2);
    // The one that failed went behind the other.
    assert_eq!(world.writes, [2, 1]);
}

#[test]
fn an_overflow_is_counted_and_repaired() {
    let mut world = World::new(3);
    for number in 0..10 {
        world.store(number, "");
        world.show(number);
    }
    for number in 0..10 {
        world.want(number, "new");
    }
    assert_eq!((world.outbox.waiting(), world.outbox.dropped), (3 + 1, 7));
    assert_eq!(world.flush(), 10);
    assert!(world.stored.values().all(|stored| stored.digest == told("new", 0).digest));
}

#[derive(Debug, Clone)]
enum Step {
    Want(u8, u8),
    WantNothing(u8),
    /// Somebody writes a status.
    Meddle(u8, u8),
    Create(u8),
    Delete(u8),
    Show(u8),
    Begin,
    Land(prop::sample::Index),
    Fail(prop::sample::Index, bool),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let (number, text) = (0..4_u8, 0..3_u8);
    prop_oneof![
        4 => (number.clone(), text.clone()).prop_map(|(number, text)| Step::Want(number, text)),
        1 => number.clone().prop_map(Step::WantNothing),
        1 => (number.clone(), text).prop_map(|(number, text)| Step::Meddle(number, text)),
        2 => number.clone().prop_map(Step::Create),
        1 => number.clone().prop_map(Step::Delete),
        4 => number.prop_map(Step::Show),
        4 => Just(Step::Begin),
        4 => any::<prop::sample::Index>().prop_map(Step::Land),
        1 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, refused)| Step::Fail(which, refused)),
        1 => any::<u16>().prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happened in whichever order: once it is quiet, the API server has what is wanted, and nothing more is
    /// written.
    #[test]
    fn in_the_end_the_api_server_has_what_is_wanted(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new(3);
        let mut flying: Vec<(u8, Option<Digest>)> = Vec::new();
        // Somebody else wrote their statuses, or they were made anew.
        let mut disturbed = BTreeSet::new();
        for step in steps {
            match step {
                Step::Want(number, text) => world.want(number, &text.to_string()),
                Step::WantNothing(number) => {
                    world.wanted.remove(&id(number));
                    world.offer();
                }
                Step::Meddle(number, text) if world.stored.contains_key(&number) => {
                    disturbed.insert(number);
                    world.store(number, &text.to_string());
                }
                Step::Create(number) if !world.stored.contains_key(&number) => world.store(number, ""),
                Step::Delete(number) => {
                    disturbed.insert(number);
                    world.stored.remove(&number);
                }
                Step::Show(number) => world.show(number),
                Step::Begin => flying.extend(world.next()),
                Step::Land(which) if !flying.is_empty() => {
                    let letter = flying.remove(which.index(flying.len()));
                    let landing = world.deliver(letter);
                    world.outbox.landed(subject(letter.0), landing, world.now);
                }
                Step::Fail(which, refused) if !flying.is_empty() => {
                    let letter = flying.remove(which.index(flying.len()));
                    let landing = if refused { Landing::Refused } else { Landing::Later };
                    world.outbox.landed(subject(letter.0), landing, world.now);
                }
                Step::Wait(millis) => world.now += Duration::from_millis(millis.into()),
                Step::Meddle(..) | Step::Create(_) | Step::Land(_) | Step::Fail(..) => {}
            }
            prop_assert!(world.outbox.turns.len() <= 3 && world.outbox.flying() == flying.len());
        }
        for letter in std::mem::take(&mut flying) {
            let landing = world.deliver(letter);
            world.outbox.landed(subject(letter.0), landing, world.now);
        }
        for number in 0..4 {
            world.show(number);
        }
        // Long enough for everything that is left alone.
        for _ in 0..3 {
            world.now += Duration::from_hours(1);
            world.flush();
            for number in 0..4 {
                world.show(number);
            }
        }
        for (number, stored) in world.stored.clone() {
            if let Some(wanted) = world.wanted.get(&id(number)) {
                prop_assert_eq!(stored.digest, Some(wanted.digest()), "of {}", number);
            } else if !disturbed.contains(&number) {
                prop_assert_eq!(stored.digest, None, "of {}, which is served no more", number);
            }
        }
        world.writes.clear();
        world.outbox.compare_all(world.now + SECOND);
        world.now += Duration::from_hours(1);
        world.flush();
        prop_assert!(world.writes.is_empty());
        let outbox = &world.outbox;
        prop_assert!(outbox.turns.is_empty() && outbox.flying.is_empty() && outbox.written.is_empty());
        prop_assert!(outbox.held_until.len() <= outbox.held.len());
    }
}
