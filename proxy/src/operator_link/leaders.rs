//! Whose word counts: of all streams, the one whose sender leads in the highest term.
//!
//! | a stream says          | its term, beside the highest heard | what comes of it                                 |
//! |------------------------|------------------------------------|--------------------------------------------------|
//! | Welcome                | lower                              | refused: its sender was deposed and does not know |
//! | Welcome                | the same or higher                 | it leads; the one that led until now is closed   |
//! | `NotLeader`, or it ends | -                                 | it leads no more, if it did                      |
//!
//! "Heard" begins with the term of the table in force, so a restart forgets nothing that matters.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use operator_link::wire::FromProxy;
use tokio::sync::{Notify, mpsc};

/// A stream, among all of this process.
pub(super) type CallId = u64;

/// A stream's way up, and its end.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) id: CallId,
    pub(super) up: mpsc::Sender<FromProxy>,
    /// Told when another stream leads.
    pub(super) closed: Arc<Notify>,
}

/// A leader was deposed and does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deposed {
    /// The highest term heard.
    pub(super) heard: u64,
}

#[derive(Debug, Default)]
struct State {
    highest: u64,
    present: Option<Line>,
}

/// Which stream leads.
#[derive(Debug)]
pub(super) struct Leaders(Mutex<State>);

impl Leaders {
    pub(super) fn new(highest: u64) -> Self {
        Self(Mutex::new(State { highest, present: None }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream's sender says that it leads.
    pub(super) fn welcome(&self, line: &Line, term: u64) -> Result<(), Deposed> {
        let mut state = self.lock();
        if term < state.highest {
            return Err(Deposed { heard: state.highest });
        }
        state.highest = term;
        let before = state.present.replace(line.clone());
        if let Some(before) = before.filter(|before| before.id != line.id) {
            before.closed.notify_one();
        }
        Ok(())
    }

    /// A stream leads no more. Did it?
    pub(super) fn leave(&self, id: CallId) -> bool {
        let mut state = self.lock();
        let led = state.present.as_ref().is_some_and(|present| present.id == id);
        if led {
            state.present = None;
        }
        led
    }

    /// Does this stream lead?
    pub(super) fn leads(&self, id: CallId) -> bool {
        self.lock().present.as_ref().is_some_and(|present| present.id == id)
    }

    /// The way up to the leader.
    pub(super) fn up(&self) -> Option<mpsc::Sender<FromProxy>> {
        self.lock().present.as_ref().map(|present| present.up.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn line(id: CallId) -> Line {
        Line { id, up: mpsc::channel(1).0, closed: Arc::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_highest_term_leads_and_nobody_goes_back() {
        let leaders = Leaders::new(4);
        let (old, first, second) = (line(1), line(2), line(3));
        assert_eq!(leaders.welcome(&old, 3), Err(Deposed { heard: 4 }));
        assert!(!leaders.leads(1) && leaders.up().is_none());
        leaders.welcome(&first, 4).unwrap();
        assert!(leaders.leads(2));
        leaders.welcome(&second, 7).unwrap();
        assert!(leaders.leads(3) && !leaders.leads(2));
        let told = |line: &Line| {
            let closed = line.closed.clone();
            async move { timeout(Duration::from_secs(1), closed.notified()).await.is_ok() }
        };
        assert!(told(&first).await && !told(&second).await);
        assert_eq!(leaders.welcome(&first, 4), Err(Deposed { heard: 7 }));
        assert!(!leaders.leave(2), "it did not lead any more");
        leaders.welcome(&second, 8).unwrap();
        assert!(!told(&second).await, "the same stream in a new term");
        assert!(leaders.leave(3) && leaders.up().is_none());
        assert_eq!(leaders.welcome(&first, 7), Err(Deposed { heard: 8 }), "heard is heard");
    }
}
