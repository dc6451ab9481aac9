//! A tunnel as other threads see it: a letter box and a few figures.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::Asked;
use crate::multiplexer::Signal;

/// What can be asked of a tunnel.
pub(super) enum Letter<A> {
    Visitor(A),
    Signal(Signal),
    Probe(oneshot::Sender<Duration>),
    Drain,
    Cut(Asked),
    End(Asked),
}

/// Asks a tunnel for things, and reads its figures, from any thread.
pub struct TunnelHandle<A> {
    shared: Arc<Shared<A>>,
}

impl<A> Clone for TunnelHandle<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<A> std::fmt::Debug for TunnelHandle<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TunnelHandle").field(&self.facts()).finish()
    }
}

pub(super) struct Shared<A> {
    letters: Mutex<LetterBox<A>>,
    has_mail: AtomicBool,
    pub(super) channels: AtomicUsize,
    pub(super) to_peer: AtomicU64,
    pub(super) from_peer: AtomicU64,
    pub(super) waiting: AtomicUsize,
    born: Instant,
    /// Milliseconds after `born` of the last pong; 0 for never.
    pong_at: AtomicU64,
    round_trip_us: AtomicU64,
}

struct LetterBox<A> {
    letters: VecDeque<Letter<A>>,
    owner: Option<Waker>,
    closed: bool,
    /// Nothing keeps a tunnel that was cut from its end.
    released: bool,
}

/// The figures of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Channels open now.
    pub channels: usize,
    /// Bytes of visitors sent to the peer by channels that are over or under way.
    pub to_peer: u64,
    /// Bytes of the peer that its visitors' streams have taken.
    pub from_peer: u64,
    /// Bytes that wait for slow readers.
    pub waiting: usize,
    /// When it was opened.
    pub since: Instant,
    /// When the peer last answered a question.
    pub last_pong: Option<Instant>,
    /// How long that took.
    pub round_trip: Duration,
}

impl<A> TunnelHandle<A> {
    pub(super) fn new(now: Instant) -> (Self, Arc<Shared<A>>) {
        let shared = Arc::new(Shared {
            letters: Mutex::new(LetterBox {
                letters: VecDeque::new(),
                owner: None,
                closed: false,
                released: false,
            }),
            has_mail: AtomicBool::new(false),
            channels: AtomicUsize::new(0),
            to_peer: AtomicU64::new(0),
            from_peer: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            born: now,
            pong_at: AtomicU64::new(0),
            round_trip_us: AtomicU64::new(0),
        });
        (Self { shared: shared.clone() }, shared)
    }

    fn post(&self, letter: Letter<A>) -> Result<(), Letter<A>> {
        let owner = {
            let mut letters = self.shared.lock();
            if letters.closed {
                return Err(letter);
            }
            letters.letters.push_back(letter);
            self.shared.has_mail.store(true, Ordering::Release);
            letters.owner.clone()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
        Ok(())
    }

    /// Hands a visitor over; gives it back if the tunnel is gone.
    pub fn send_visitor(&self, visitor: A) -> Result<(), A> {
        match self.post(Letter::Visitor(visitor)) {
            Err(Letter::Visitor(visitor)) => Err(visitor),
            _ => Ok(()),
        }
    }

    /// Says a word of ours to the peer.
    pub fn signal(&self, signal: Signal) {
        // A tunnel that is gone needs no words: the same in the three below.
        let _ = self.post(Letter::Signal(signal));
    }

    /// Asks the peer for a sign of life; answers with the round trip. Dropped when the tunnel ends.
    pub fn probe(&self) -> oneshot::Receiver<Duration> {
        let (answer, receiver) = oneshot::channel();
        let _ = self.post(Letter::Probe(answer));
        receiver
    }

    /// Ends the tunnel as soon as no channel is open.
    pub fn drain(&self) {
        let _ = self.post(Letter::Drain);
    }

    /// Closes the connection at once: of thousands, the last one does not wait for what the end of a tunnel costs besides.
    /// That comes with [`finish`](Self::finish), or once a farewell would have taken too long. No visitor is taken any more.
    pub fn cut(&self, why: Asked) {
        let _ = self.post(Letter::Cut(why));
    }

    /// Ends a tunnel that was cut.
    pub fn finish(&self) {
        let owner = {
            let mut letters = self.shared.lock();
            letters.released = true;
            letters.owner.clone()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    /// Ends the tunnel, after what is queued for the peer has left.
    pub fn end(&self, why: Asked) {
        let _ = self.post(Letter::End(why));
    }

    /// Is the tunnel gone?
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Do both handles speak of the same tunnel?
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Channels open now.
    pub fn channels(&self) -> usize {
        self.shared.channels.load(Ordering::Relaxed)
    }

    /// The figures now.
    pub fn facts(&self) -> Facts {
        let shared = &self.shared;
        let pong_at = shared.pong_at.load(Ordering::Relaxed);
        Facts {
            channels: shared.channels.load(Ordering::Relaxed),
            to_peer: shared.to_peer.load(Ordering::Relaxed),
            from_peer: shared.from_peer.load(Ordering::Relaxed),
            waiting: shared.waiting.load(Ordering::Relaxed),
            since: shared.born,
            last_pong: (pong_at > 0).then(|| super::later(shared.born, Duration::from_millis(pong_at))),
            round_trip: Duration::from_micros(shared.round_trip_us.load(Ordering::Relaxed)),
        }
    }
}

impl<A> Shared<A> {
    fn lock(&self) -> MutexGuard<'_, LetterBox<A>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Remembers whom to wake for the next letter.
    pub(super) fn register(&self, owner: &Waker) {
        let mut letters = self.lock();
        if !letters.owner.as_ref().is_some_and(|known| known.will_wake(owner)) {
            letters.owner = Some(owner.clone());
        }
    }

    pub(super) fn collect(&self) -> VecDeque<Letter<A>> {
        self.has_mail.store(false, Ordering::Release);
        std::mem::take(&mut self.lock().letters)
    }

    /// No letter is taken any more; those that lie there are returned. The owner is still woken by
    /// [`TunnelHandle::finish`].
    pub(super) fn close(&self) -> VecDeque<Letter<A>> {
        let mut letters = self.lock();
        letters.closed = true;
        std::mem::take(&mut letters.letters)
    }

    /// The same, for good.
    pub(super) fn leave(&self) -> VecDeque<Letter<A>> {
        let mut letters = self.lock();
        letters.closed = true;
        letters.owner = None;
        std::mem::take(&mut letters.letters)
    }

    pub(super) fn is_released(&self) -> bool {
        self.lock().released
    }

    pub(super) fn pong(&self, now: Instant, round_trip: Duration) {
        let age = now.saturating_duration_since(self.born).as_millis().max(1);
        self.pong_at.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.round_trip_us.store(micros, Ordering::Relaxed);
    }
}
