//! The channels of a tunnel: who they are to the peer, and what waits for their readers.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::{flow_control::Valve, frame::ChannelId};

/// Names a channel to the program that drives the tunnel. A key outlives its channel harmlessly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey {
    slot: u32,
    generation: u32,
}

impl ChannelKey {
    /// A small number, unique among the channels that are there at one time.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    /// The peer knows it too. False: it is gone, only what waits is still delivered.
    pub(crate) open: bool,
    /// The peer asked us to send no more for it.
    pub(crate) held: bool,
    pub(crate) valve: Valve,
    pub(crate) waiting: Waiting,
}

/// Received bytes that their reader has not taken.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    chunks: VecDeque<Vec<u8>>,
    /// Taken bytes of the first chunk.
    taken: usize,
    len: usize,
}

/// Small frames are gathered into chunks of this size, so that their bookkeeping stays small.
const CHUNK: usize = 16 << 10;

impl Waiting {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        match self.chunks.back_mut() {
            Some(last) if last.capacity() - last.len() >= bytes.len() => last.extend_from_slice(bytes),
            _ => {
                let mut chunk = Vec::with_capacity(bytes.len().max(CHUNK));
                chunk.extend_from_slice(bytes);
                self.chunks.push_back(chunk);
            }
        }
    }

    pub(crate) fn first(&self) -> &[u8] {
        self.chunks.front().and_then(|chunk| chunk.get(self.taken..)).unwrap_or_default()
    }

    /// Up to `count` bytes were taken; returns how many there were of them.
    pub(crate) fn take(&mut self, mut count: usize) -> usize {
        let mut removed = 0;
        while count > 0 {
            let Some(first) = self.chunks.front() else { break };
            let here = (first.len() - self.taken).min(count);
            (count, removed) = (count - here, removed + here);
            self.taken += here;
            if self.taken == first.len() {
                self.chunks.pop_front();
                self.taken = 0;
            }
        }
        self.len -= removed;
        removed
    }
}

/// Every channel, by key and by the id it has on the wire.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: HashMap<ChannelId, ChannelKey, foldhash::fast::RandomState>,
    /// Counts insertions, so that no key is ever given twice in a row of four billion.
    next_generation: u32,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    channel: Option<Channel>,
}

impl Channels {
    /// Channels the peer knows.
    pub(crate) fn open_count(&self) -> usize {
        self.by_id.len()
    }

    /// Channels that cost memory: open, or not yet read to their end.
    pub(crate) fn present(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds an open channel; `None` if the id is taken.
    pub(crate) fn insert(&mut self, id: ChannelId) -> Option<ChannelKey> {
        if self.by_id.contains_key(&id) {
            return None;
        }
        let channel =
            Channel { id, open: true, held: false, valve: Valve::default(), waiting: Waiting::default() };
        let slot = self.free.pop().unwrap_or(u32::try_from(self.slots.len()).ok()?);
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let key = ChannelKey { slot, generation };
        if key.slot() == self.slots.len() {
            self.slots.push(Slot::default());
        }
        if let Some(place) = self.slots.get_mut(key.slot()) {
            *place = Slot { generation, channel: Some(channel) };
        }
        self.by_id.insert(id, key);
        Some(key)
    }

    pub(crate) fn find(&self, id: &ChannelId) -> Option<ChannelKey> {
        self.by_id.get(id).copied()
    }

    /// The channel in which most waits, if anything waits at all.
    pub(crate) fn fullest(&self) -> Option<ChannelKey> {
        let waiting = self.slots.iter().zip(0..).filter_map(|(place, slot)| {
            let waiting = place.channel.as_ref()?.waiting.len();
            (waiting > 0).then_some((waiting, ChannelKey { slot, generation: place.generation }))
        });
        waiting.max_by_key(|(waiting, _)| *waiting).map(|(_, key)| key)
    }

    pub(crate) fn get(&self, key: ChannelKey) -> Option<&Channel> {
        self.slots
            .get(key.slot())
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.channel.as_ref())
    }

    pub(crate) fn get_mut(&mut self, key: ChannelKey) -> Option<&mut Channel> {
        self.slots
            .get_mut(key.slot())
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.channel.as_mut())
    }

    /// The peer no longer knows the channel; what waits in it stays.
    pub(crate) fn hang_up(&mut self, key: ChannelKey) {
        if let Some(channel) = self.get_mut(key) {
            channel.open = false;
            let id = channel.id;
            self.by_id.remove(&id);
        }
    }

    /// Removes the channel with all that waits in it.
    pub(crate) fn remove(&mut self, key: ChannelKey) -> Option<Channel> {
        let slot = self.slots.get_mut(key.slot()).filter(|slot| slot.generation == key.generation)?;
        let channel = slot.channel.take()?;
        self.free.push(key.slot);
        if channel.open {
            self.by_id.remove(&channel.id);
        }
        if self.by_id.is_empty() && self.free.len() == self.slots.len() {
            // An idle tunnel keeps nothing of its busy hours.
            *self = Self { next_generation: self.next_generation, ..Self::default() };
        }
        Some(channel)
    }
}
