//! Is the peer still there? Only a live pong says so.

use std::time::{Duration, Instant};

use crate::frame::ChannelId;

/// When to ask, and how long to wait for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatSettings {
    /// Time between two questions.
    pub every: Duration,
    /// Ask only a peer that was silent for so long; else on schedule, whatever else it says.
    pub only_when_silent: bool,
    /// A peer that does not answer within this is gone.
    pub patience: Duration,
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        Self { every: Duration::from_secs(30), only_when_silent: false, patience: Duration::from_secs(25) }
    }
}

#[derive(Debug)]
pub(crate) struct Heartbeat {
    settings: HeartbeatSettings,
    heard_at: Instant,
    next_ping: Instant,
    asked: Option<Question>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    id: ChannelId,
    at: Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Wait,
    Ask,
    Dead,
}

impl Heartbeat {
    pub(crate) fn new(settings: HeartbeatSettings, now: Instant) -> Self {
        Self { settings, heard_at: now, next_ping: now + settings.every, asked: None }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.asked.map_or(self.next_ping, |question| question.at + self.settings.patience)
    }

    pub(crate) fn beat(&mut self, now: Instant) -> Beat {
        if let Some(question) = self.asked {
            return if now >= question.at + self.settings.patience { Beat::Dead } else { Beat::Wait };
        }
        if self.settings.only_when_silent {
            self.next_ping = self.next_ping.max(self.heard_at + self.settings.every);
        }
        if now >= self.next_ping { Beat::Ask } else { Beat::Wait }
    }

    /// Puts a question on the wire; one that is still open stays the one that counts.
    pub(crate) fn asked(&mut self, id: ChannelId, now: Instant) {
        self.asked.get_or_insert(Question { id, at: now });
        self.next_ping = now + self.settings.every;
    }

    /// A pong came: the time it took, if it answers our question.
    pub(crate) fn answered(&mut self, id: ChannelId, now: Instant) -> Option<Duration> {
        let question = self.asked.filter(|question| question.id == id)?;
        self.asked = None;
        Some(now.saturating_duration_since(question.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: HeartbeatSettings = HeartbeatSettings {
        every: Duration::from_secs(30),
        only_when_silent: false,
        patience: Duration::from_secs(10),
    };
    const ID: ChannelId = ChannelId([7; 16]);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_peer_that_talks_but_never_answers_is_dead() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(SETTINGS, start);
        assert_eq!(heart.beat(at(start, 29)), Beat::Wait);
        assert_eq!(heart.beat(at(start, 30)), Beat::Ask);
        heart.asked(ID, at(start, 30));
        heart.heard(at(start, 39));
        assert_eq!(heart.deadline(), at(start, 40));
        assert_eq!(heart.beat(at(start, 40)), Beat::Dead);
    }

    #[test]
    fn only_the_answer_to_our_question_counts() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(SETTINGS, start);
        heart.asked(ID, at(start, 30));
        assert_eq!(heart.answered(ChannelId([8; 16]), at(start, 31)), None);
        assert_eq!(heart.answered(ID, at(start, 32)), Some(Duration::from_secs(2)));
        assert_eq!(heart.beat(at(start, 41)), Beat::Wait);
        assert_eq!(heart.deadline(), at(start, 60));
    }

    #[test]
    fn a_peer_that_talks_need_not_be_asked() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(HeartbeatSettings { only_when_silent: true, ..SETTINGS }, start);
        heart.heard(at(start, 20));
        assert_eq!(heart.beat(at(start, 30)), Beat::Wait);
        assert_eq!(heart.deadline(), at(start, 50));
        assert_eq!(heart.beat(at(start, 50)), Beat::Ask);
    }
}
