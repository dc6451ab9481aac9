//! The local ends of a tunnel's channels: their streams, and how each is served.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use byte_relay::ready_set::{ReadySet, Slot};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Arrived, ChannelEnd, CloseReason, Host, Signal};
use crate::{
    channel::ChannelKey,
    multiplexer::{Ended, Local, Multiplexer},
    outbox::Outbox,
    random::Random,
};

/// Least room in the outbox that is worth a read.
const WORTH_READING: usize = 4 << 10;
/// What one channel may put into the outbox in a turn while others want a turn too.
const SHARE: usize = 64 << 10;

/// The local end of one channel.
pub(super) struct Seat<S, T> {
    key: ChannelKey,
    stream: S,
    ticket: T,
    slot: Slot,
    /// Bytes to write before anything of the peer's.
    first: Vec<u8>,
    /// The peer closed it; what waits is still delivered.
    hung_up: bool,
    failed: Option<CloseReason>,
    to_peer: u64,
    from_peer: u64,
    opened: Instant,
    moved: Instant,
}

/// All local ends, and the program that owns them.
pub(super) struct Desk<H: Host> {
    pub(super) host: H,
    seats: Vec<Option<Seat<H::Stream, H::Ticket>>>,
    pub(super) seated: usize,
    ready: ReadySet,
    /// Slots that want to be served.
    pub(super) wanting: Vec<u32>,
    /// Of this turn.
    pub(super) now: Instant,
    pub(super) to_peer: u64,
    pub(super) from_peer: u64,
    /// A pong of this turn.
    pub(super) pong: Option<Duration>,
}

/// What came of serving a channel.
#[derive(PartialEq, Eq)]
pub(super) enum Served {
    /// It has nothing more to do until it is woken.
    Done,
    /// It had its share and wants another turn.
    Again,
    /// It had nothing: the outbox is full.
    NoRoom,
}

impl<H: Host> Desk<H> {
    pub(super) fn new(host: H, now: Instant) -> Self {
        Self {
            host,
            seats: Vec::new(),
            seated: 0,
            ready: ReadySet::default(),
            wanting: Vec::new(),
            now,
            to_peer: 0,
            from_peer: 0,
            pong: None,
        }
    }

    /// Adds the slots that were woken to those that want service.
    pub(super) fn collect_ready(&mut self, cx: &Context<'_>) {
        let known = self.wanting.len();
        self.ready.collect(&mut self.wanting, cx.waker());
        for slot in self.wanting.get(known..).unwrap_or_default() {
            if let Some(Some(seat)) = self.seats.get(*slot as usize) {
                seat.slot.unlist();
            }
        }
    }

    pub(super) fn seat(
        &mut self,
        key: ChannelKey,
        arrived: Arrived<H::Stream, H::Ticket>,
        already_sent: usize,
    ) {
        let index = key.slot();
        // Whoever still sits here hung up before its stream took its first bytes, and its key is void.
        self.finish(index, CloseReason::Peer);
        if self.seats.len() <= index {
            self.seats.resize_with(index + 1, || None);
        }
        let slot = u32::try_from(index).unwrap_or(u32::MAX);
        if let Some(place) = self.seats.get_mut(index) {
            *place = Some(Seat {
                key,
                stream: arrived.stream,
                ticket: arrived.ticket,
                slot: self.ready.slot(slot),
                first: arrived.first,
                hung_up: false,
                failed: None,
                to_peer: already_sent as u64,
                from_peer: 0,
                opened: self.now,
                moved: self.now,
            });
            self.seated += 1;
            self.wanting.push(slot);
        }
    }

    fn at(&mut self, key: ChannelKey) -> Option<&mut Seat<H::Stream, H::Ticket>> {
        self.seats.get_mut(key.slot()).and_then(Option::as_mut).filter(|seat| seat.key == key)
    }

    /// Empties a seat and gives its stream back to the program.
    fn finish(&mut self, slot: usize, why: CloseReason) {
        let Some(seat) = self.seats.get_mut(slot).and_then(Option::take) else { return };
        self.seated -= 1;
        if self.seated == 0 {
            // An idle tunnel keeps nothing of its busy hours.
            self.seats = Vec::new();
            self.wanting = Vec::new();
        }
        let end = ChannelEnd {
            why,
            to_peer: seat.to_peer,
            from_peer: seat.from_peer,
            lived: self.now.saturating_duration_since(seat.opened),
        };
        self.host.finished(seat.stream, seat.ticket, end);
    }

    /// The tunnel is over, and so is every channel.
    pub(super) fn finish_all(&mut self, why: CloseReason) {
        for slot in 0..self.seats.len() {
            self.finish(slot, why);
        }
    }

    /// Closes channels on which nothing moved since `limit`.
    pub(super) fn sweep(
        &mut self,
        limit: Instant,
        mux: &mut Multiplexer,
        out: &mut Outbox,
        random: &mut impl Random,
    ) {
        for slot in 0..self.seats.len() {
            if let Some(Some(seat)) = self.seats.get(slot)
                && seat.moved < limit
            {
                mux.close(seat.key, out, random);
                self.finish(slot, CloseReason::Idle);
            }
        }
    }

    /// Moves what can be moved for one channel, both ways.
    pub(super) fn serve(
        &mut self,
        slot: u32,
        share: bool,
        mux: &mut Multiplexer,
        out: &mut Outbox,
        random: &mut impl Random,
    ) -> Served {
        let index = slot as usize;
        let now = self.now;
        let Some(Some(seat)) = self.seats.get_mut(index) else { return Served::Done };
        let before = seat.from_peer;
        let end = match seat.write_waiting(now, mux, out, random) {
            Ok(false) => None,
            Ok(true) => Some(CloseReason::Peer),
            Err(error) => Some(CloseReason::LocalError(error)),
        };
        self.from_peer += seat.from_peer - before;
        if let Some(why) = end.or(seat.failed) {
            mux.close(seat.key, out, random);
            self.finish(index, why);
            return Served::Done;
        }
        let mut left = if share { SHARE } else { usize::MAX };
        let mut cx = Context::from_waker(seat.slot.waker());
        let mut had = false;
        while mux.may_send(seat.key) {
            let room = out.room().saturating_sub(64);
            if room < WORTH_READING || left == 0 {
                return if had { Served::Again } else { Served::NoRoom };
            }
            had = true;
            let stream = &mut seat.stream;
            let read = mux.send_data(seat.key, room.min(left), out, random, |buffer| {
                let mut buffer = ReadBuf::new(buffer);
                let answer = Pin::new(stream).poll_read(&mut cx, &mut buffer);
                let count = if matches!(answer, Poll::Ready(Ok(()))) { buffer.filled().len() } else { 0 };
                (count, answer.map_ok(|()| count))
            });
            match read {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) if count > 0 => {
                    seat.to_peer += count as u64;
                    self.to_peer += count as u64;
                    seat.moved = now;
                    left = left.saturating_sub(count);
                }
                Poll::Ready(ended) => {
                    let why =
                        ended.map_or_else(|e| CloseReason::LocalError(e.kind()), |_| CloseReason::LocalEnd);
                    mux.close(seat.key, out, random);
                    self.finish(index, why);
                    return Served::Done;
                }
            }
        }
        Served::Done
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, T> Seat<S, T> {
    /// Writes `first`; true when it is all gone.
    fn write_first(&mut self) -> Result<bool, std::io::ErrorKind> {
        if self.first.is_empty() {
            return Ok(true);
        }
        let cx = &mut Context::from_waker(self.slot.waker());
        while !self.first.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.first) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero),
                Poll::Ready(Ok(count)) => drop(self.first.drain(..count)),
                Poll::Ready(Err(error)) => return Err(error.kind()),
            }
        }
        self.first = Vec::new();
        Ok(true)
    }

    /// Writes what waits for the stream. True: the channel is over and all is delivered.
    fn write_waiting(
        &mut self,
        now: Instant,
        mux: &mut Multiplexer,
        out: &mut Outbox,
        random: &mut impl Random,
    ) -> Result<bool, std::io::ErrorKind> {
        if !self.write_first()? {
            return Ok(false);
        }
        let mut cx = Context::from_waker(self.slot.waker());
        loop {
            let bytes = mux.waiting(self.key);
            if bytes.is_empty() {
                // A pipe passes on what it holds only when told; a socket needs no telling.
                let _ = Pin::new(&mut self.stream).poll_flush(&mut cx);
                return Ok(self.hung_up);
            }
            match Pin::new(&mut self.stream).poll_write(&mut cx, bytes) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero),
                Poll::Ready(Ok(count)) => {
                    self.moved = now;
                    self.from_peer += count as u64;
                    if mux.taken(self.key, count, out, random) {
                        return Ok(true);
                    }
                }
                Poll::Ready(Err(error)) => return Err(error.kind()),
            }
        }
    }
}

impl<H: Host> Local for Desk<H> {
    fn opened(&mut self, key: ChannelKey, visitor: Option<IpAddr>) -> bool {
        let Some(arrived) = self.host.open(visitor) else { return false };
        self.seat(key, arrived, 0);
        true
    }

    fn data(&mut self, key: ChannelKey, bytes: &[u8]) -> usize {
        let now = self.now;
        let Some(seat) = self.at(key) else { return bytes.len() };
        if seat.failed.is_some() {
            return bytes.len();
        }
        seat.moved = now;
        let mut written = 0;
        let mut failure = match seat.write_first() {
            Ok(true) => None,
            Ok(false) => return 0,
            Err(error) => Some(error),
        };
        let mut cx = Context::from_waker(seat.slot.waker());
        while failure.is_none()
            && let Some(rest) = bytes.get(written..)
            && !rest.is_empty()
        {
            match Pin::new(&mut seat.stream).poll_write(&mut cx, rest) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => failure = Some(std::io::ErrorKind::WriteZero),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => failure = Some(error.kind()),
            }
        }
        seat.from_peer += written as u64;
        seat.failed = failure.map(CloseReason::LocalError);
        let failed = seat.failed.is_some();
        self.from_peer += written as u64;
        if failed {
            self.wanting.push(u32::try_from(key.slot()).unwrap_or(u32::MAX));
            return bytes.len();
        }
        written
    }

    fn closed(&mut self, key: ChannelKey, ended: Ended, drained: bool) {
        let Some(seat) = self.at(key) else { return };
        seat.hung_up = true;
        let why = match ended {
            Ended::Overflow => CloseReason::Overflow,
            Ended::ByPeer if seat.first.is_empty() => CloseReason::Peer,
            // Its stream has not even taken what we had to say first.
            Ended::ByPeer => return,
        };
        if drained {
            self.finish(key.slot(), why);
        }
    }

    fn held(&mut self, key: ChannelKey, held: bool) {
        if !held {
            self.wanting.push(u32::try_from(key.slot()).unwrap_or(u32::MAX));
        }
    }

    fn alive(&mut self, round_trip: Duration) {
        self.pong = Some(round_trip);
        self.host.alive(round_trip);
    }

    fn signal(&mut self, signal: Signal) {
        self.host.signal(signal);
    }
}
