//! What waits to be sent to the peer: one run of bytes, so that all frames of a turn leave in one write.

/// Frames that are sealed and not yet sent.
///
/// Bodies are read straight into it, behind the place kept for their header. An empty outbox owns no
/// buffer: one is [lent](Outbox::lend) for a turn and [taken back](Outbox::reclaim) when all is sent.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Initialised over its whole length; what counts is `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outbox {
    /// Gives an outbox that owns no buffer one to fill.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        if self.buffer.is_empty() {
            self.buffer = buffer;
        }
    }

    /// Does it own no buffer?
    pub const fn wants_buffer(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes the buffer back if everything is sent.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        if !self.is_empty() || self.buffer.is_empty() {
            return None;
        }
        (self.start, self.end) = (0, 0);
        Some(std::mem::take(&mut self.buffer))
    }

    /// Is everything sent?
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes not yet sent.
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Bytes that still fit without growing.
    pub fn room(&self) -> usize {
        self.buffer.len().saturating_sub(self.end)
    }

    /// The bytes to send next.
    pub fn unsent(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The first `count` of them are sent.
    pub fn sent(&mut self, count: usize) {
        self.start = self.end.min(self.start.saturating_add(count));
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Moves a rest of `limit` bytes at the most to a buffer of its own and returns the large one.
    pub fn shrink(&mut self, limit: usize) -> Option<Vec<u8>> {
        if self.len() > limit || self.buffer.len() <= 2 * limit {
            return None;
        }
        let rest = self.unsent().to_vec();
        (self.start, self.end) = (0, rest.len());
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    /// Moves what is left to the front, so that the room behind it is whole again.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
    }

    /// The next `len` free bytes; grows if it must.
    pub(crate) fn tail(&mut self, len: usize) -> &mut [u8] {
        let wanted = self.end.saturating_add(len);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted.next_power_of_two(), 0);
        }
        self.buffer.get_mut(self.end..wanted).unwrap_or_default()
    }

    /// The next `len` bytes of the tail are to be sent.
    pub(crate) fn commit(&mut self, len: usize) {
        self.end = self.buffer.len().min(self.end.saturating_add(len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_comes_out_in_order_and_the_buffer_comes_back() {
        let mut outbox = Outbox::default();
        assert!(outbox.wants_buffer());
        outbox.lend(vec![0; 8]);
        for byte in 0..20u8 {
            outbox.tail(1)[0] = byte;
            outbox.commit(1);
        }
        assert_eq!(outbox.unsent(), (0..20).collect::<Vec<_>>());
        outbox.sent(5);
        outbox.compact();
        assert_eq!(outbox.unsent(), (5..20).collect::<Vec<_>>());
        assert!(outbox.reclaim().is_none());
        outbox.sent(15);
        assert!(outbox.reclaim().is_some_and(|buffer| buffer.len() >= 20));
        assert!(outbox.wants_buffer());
    }
}
