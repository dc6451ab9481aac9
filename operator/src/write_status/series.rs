//! Which news become an event of their own, and which another count of one that is there. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use planner::Event;
use tokio::time::Instant;

/// For how long the same news are the same event.
const SAME_WITHIN: Duration = Duration::from_mins(10);
/// Most news that are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// What is to be done about news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Telling {
    /// An event of its own, under this name.
    New(String),
    /// The event of this name happened so many times.
    Again(String, i32),
}

/// News that were told lately.
#[derive(Debug, Default)]
pub(super) struct Series {
    told: BTreeMap<Event, ToldEvent>,
}

#[derive(Debug)]
struct ToldEvent {
    name: String,
    times: i32,
    last: Instant,
}

impl Series {
    /// How news are to be told. `name` makes a name for an event of its own.
    pub(super) fn tell(&mut self, news: &Event, now: Instant, name: impl FnOnce() -> String) -> Telling {
        let lately = |told: &ToldEvent| now.saturating_duration_since(told.last) < SAME_WITHIN;
        if let Some(told) = self.told.get_mut(news)
            && lately(told)
        {
            told.times = told.times.saturating_add(1);
            told.last = now;
            return Telling::Again(told.name.clone(), told.times);
        }
        if self.told.len() >= MAX_REMEMBERED {
            self.told.retain(|_, told| lately(told));
        }
        let name = name();
        if self.told.len() < MAX_REMEMBERED {
            self.told.insert(news.clone(), ToldEvent { name: name.clone(), times: 1, last: now });
        }
        Telling::New(name)
    }

    /// The event is not there any more: the next of its kind is one of its own.
    pub(super) fn forget(&mut self, news: &Event) {
        self.told.remove(news);
    }
}

#[cfg(test)]
mod tests {
    use planner::{EventKind, Subject};

    use super::*;

    fn news(message: &str) -> Event {
        Event {
            about: Subject::Block("core".to_owned()),
            kind: EventKind::Warning,
            reason: "InvalidRange".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_same_within_ten_minutes_counts_up() {
        let (mut series, start) = (Series::default(), Instant::now());
        let minutes = |minutes| start + Duration::from_mins(minutes);
        let mut tell = |message: &str, at, name: &str| series.tell(&news(message), at, || name.to_owned());
        let again = |times| Telling::Again("one".to_owned(), times);
        assert_eq!(tell("a", start, "one"), Telling::New("one".to_owned()));
        assert_eq!(tell("a", minutes(9), "two"), again(2));
        // Counted from the last time, as long as it goes on.
        assert_eq!(tell("a", minutes(18), "two"), again(3));
        assert_eq!(tell("b", minutes(18), "two"), Telling::New("two".to_owned()));
        assert_eq!(tell("a", minutes(28), "three"), Telling::New("three".to_owned()));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (mut series, start) = (Series::default(), Instant::now());
        for number in 0..MAX_REMEMBERED + 5 {
            series.tell(&news(&number.to_string()), start, String::new);
        }
        assert_eq!(series.told.len(), MAX_REMEMBERED);
        series.tell(&news("later"), start + SAME_WITHIN, String::new);
        assert_eq!(series.told.len(), 1);
        series.forget(&news("later"));
        assert!(series.told.is_empty());
    }
}
