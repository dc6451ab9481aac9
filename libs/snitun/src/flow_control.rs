//! How much may wait for a reader that is slow, and what happens beyond that.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::version::ProtocolVersion;

/// The marks of one channel and of one tunnel, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// A peer that understands it is told to pause once this much waits in a channel.
    pub pause_at: usize,
    /// ... and to go on once no more than this is left.
    pub resume_at: usize,
    /// A channel in which more than this waits is reset.
    pub reset_at: usize,
    /// A channel that would bring its whole tunnel over this is reset.
    pub tunnel_reset_at: usize,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            pause_at: 1 << 20,
            resume_at: 256 << 10,
            // What a peer may have on its way when PAUSE reaches it: its socket's buffer, ours, and a few frames.
            reset_at: 24 << 20,
            tunnel_reset_at: 64 << 20,
        }
    }
}

/// The bytes that may wait in all tunnels of a process together.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    used: AtomicUsize,
    peak: AtomicUsize,
    cap: usize,
}

impl Budget {
    /// A budget of `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Self(Arc::new(Shared { used: AtomicUsize::new(0), peak: AtomicUsize::new(0), cap }))
    }

    /// Bytes that wait now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The most that ever waited.
    pub fn peak(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// Takes `bytes` of it, or nothing.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let before = self.0.used.fetch_add(bytes, Ordering::Relaxed);
        let now = before.saturating_add(bytes);
        if now > self.0.cap {
            self.0.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.0.peak.fetch_max(now, Ordering::Relaxed);
        true
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(512 << 20)
    }
}

/// What the level of a channel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Nothing,
    Pause,
    Resume,
    Reset,
}

/// The valve of one channel: have we told the peer to pause?
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Valve {
    paused: bool,
}

impl Valve {
    /// | waiting            | peer understands PAUSE | told to pause | verdict |
    /// |--------------------|------------------------|---------------|---------|
    /// | over `reset_at`    | -                      | -             | Reset   |
    /// | from `pause_at` on | yes                    | no            | Pause   |
    /// | to `resume_at`     | yes                    | yes           | Resume  |
    /// | anything else      |                        |               | Nothing |
    pub(crate) fn judge(&mut self, waiting: usize, peer: ProtocolVersion, marks: &Marks) -> Verdict {
        if waiting > marks.reset_at {
            return Verdict::Reset;
        }
        if !peer.understands_pause() {
            return Verdict::Nothing;
        }
        if !self.paused && waiting >= marks.pause_at {
            self.paused = true;
            return Verdict::Pause;
        }
        if self.paused && waiting <= marks.resume_at {
            self.paused = false;
            return Verdict::Resume;
        }
        Verdict::Nothing
    }

    pub(crate) const fn is_paused(self) -> bool {
        self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { pause_at: 10, resume_at: 4, reset_at: 20, tunnel_reset_at: 100 };

    #[test]
    fn each_row_of_the_table() {
        let mut valve = Valve::default();
        assert_eq!(valve.judge(21, ProtocolVersion::V1, &MARKS), Verdict::Reset);
        assert_eq!(valve.judge(9, ProtocolVersion::V1, &MARKS), Verdict::Nothing);
        assert_eq!(valve.judge(10, ProtocolVersion::V1, &MARKS), Verdict::Pause);
        assert_eq!(valve.judge(15, ProtocolVersion::V1, &MARKS), Verdict::Nothing, "told once");
        assert_eq!(valve.judge(5, ProtocolVersion::V1, &MARKS), Verdict::Nothing);
        assert_eq!(valve.judge(4, ProtocolVersion::V1, &MARKS), Verdict::Resume);
        assert_eq!(valve.judge(0, ProtocolVersion::V1, &MARKS), Verdict::Nothing);
    }

    #[test]
    fn a_version_0_peer_is_never_told_to_pause() {
        let mut valve = Valve::default();
        for waiting in 0..=20 {
            assert_eq!(valve.judge(waiting, ProtocolVersion::V0, &MARKS), Verdict::Nothing);
        }
        assert_eq!(valve.judge(21, ProtocolVersion::V0, &MARKS), Verdict::Reset);
    }

    #[test]
    fn a_budget_gives_all_or_nothing() {
        let budget = Budget::new(10);
        assert!(budget.take(6));
        assert!(!budget.take(5));
        assert!(budget.take(4));
        budget.give_back(10);
        assert_eq!((budget.used(), budget.peak()), (0, 10));
    }
}
