//! Which of many sockets of ONE task are ready, so that the task need not look at them all.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

/// Collects the slots whose wakers were called since the last look, and wakes the task that owns them.
#[derive(Debug, Clone, Default)]
pub struct ReadySet(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    ready: Vec<u32>,
    owner: Option<Waker>,
}

#[derive(Debug)]
struct SlotWaker {
    set: Arc<Shared>,
    slot: u32,
    listed: AtomicBool,
}

/// The waker of one slot.
#[derive(Debug, Clone)]
pub struct Slot {
    inner: Arc<SlotWaker>,
    waker: Waker,
}

impl Slot {
    /// Hand this to the socket of the slot.
    pub const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// The slot was taken off the list: from now on it may be listed again.
    pub fn unlist(&self) {
        self.inner.listed.store(false, Ordering::Release);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        let owner = {
            let mut state = self.set.lock();
            state.ready.push(self.slot);
            // The first of a batch wakes the owner; the rest finds it awake.
            state.owner.take()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl ReadySet {
    /// A waker that puts `slot` on the list.
    pub fn slot(&self, slot: u32) -> Slot {
        let inner = Arc::new(SlotWaker { set: self.0.clone(), slot, listed: AtomicBool::new(false) });
        Slot { waker: Waker::from(inner.clone()), inner }
    }

    /// Moves the listed slots to the end of `slots` and remembers whom to wake for the next one. Each
    /// slot must be [unlisted](Slot::unlist) before it is looked at.
    pub fn collect(&self, slots: &mut Vec<u32>, owner: &Waker) {
        let mut state = self.0.lock();
        slots.append(&mut state.ready);
        if !state.owner.as_ref().is_some_and(|known| known.will_wake(owner)) {
            state.owner = Some(owner.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_batch_wakes_its_owner_once_and_lists_each_slot_once() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let owner = Waker::from(count.clone());
        let set = ReadySet::default();
        let mut slots = Vec::new();
        set.collect(&mut slots, &owner);
        let (a, b) = (set.slot(1), set.slot(2));
        a.waker().wake_by_ref();
        a.waker().wake_by_ref();
        b.waker().wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        set.collect(&mut slots, &owner);
        assert_eq!(slots, [1, 2]);
        a.unlist();
        b.waker().wake_by_ref();
        a.waker().wake_by_ref();
        slots.clear();
        set.collect(&mut slots, &owner);
        assert_eq!(slots, [1], "b was never unlisted");
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }
}
