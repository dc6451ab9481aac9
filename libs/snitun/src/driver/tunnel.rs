//! The future that is a tunnel.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use byte_relay::scratch;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
    sync::oneshot,
    time::{Sleep, sleep_until},
};

use super::{
    Asked, CloseReason, Host, ThreadRandom, TunnelEnd, TunnelSettings,
    desk::{Desk, Served},
    handle::{Letter, Shared, TunnelHandle},
    later, sweep_interval,
};
use crate::{
    cipher::{Opener, Role, Sealer},
    multiplexer::{Counts, Multiplexer},
    outbox::Outbox,
    version::ProtocolVersion,
};

/// Turns a tunnel may take before the other tasks of its thread get theirs.
const TURNS: usize = 8;
/// What is left of a blocked outbox is kept in a buffer of its own size up to this.
const SMALL_REST: usize = 32 << 10;

/// A tunnel after its handshake: drives everything until it ends.
///
/// Keeps its own measure of fairness, so spawn it inside [`tokio::task::unconstrained`].
#[must_use = "a tunnel does nothing unless polled"]
pub struct Tunnel<H: Host> {
    socket: TcpStream,
    mux: Multiplexer,
    out: Outbox,
    desk: Desk<H>,
    shared: Arc<Shared<H::Arrival>>,
    settings: TunnelSettings,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    next_sweep: Instant,
    probes: Vec<oneshot::Sender<std::time::Duration>>,
    draining: bool,
    /// The connection is closed already.
    is_cut: bool,
    ending: Option<(Asked, Instant)>,
}

impl<H: Host> std::fmt::Debug for Tunnel<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("mux", &self.mux).finish_non_exhaustive()
    }
}

impl<H: Host> Tunnel<H> {
    /// Takes over a connection after its handshake. `peer` is the version the other side understands.
    pub fn new(
        role: Role,
        socket: TcpStream,
        ciphers: (Sealer, Opener),
        peer: ProtocolVersion,
        settings: TunnelSettings,
        host: H,
    ) -> (Self, TunnelHandle<H::Arrival>) {
        let now = Instant::now();
        // Without it frames of a turn would wait for the acknowledgement of those before.
        let _ = socket.set_nodelay(true);
        let (handle, shared) = TunnelHandle::new(now);
        let mux = Multiplexer::new(role, peer, ciphers, settings.protocol.clone(), now);
        let timer_at = mux.next_deadline();
        let tunnel = Self {
            socket,
            mux,
            out: Outbox::default(),
            desk: Desk::new(host, now),
            shared,
            timer: Box::pin(sleep_until(timer_at.into())),
            timer_at,
            next_sweep: now,
            probes: Vec::new(),
            settings,
            draining: false,
            is_cut: false,
            ending: None,
        };
        (tunnel, handle)
    }

    fn read_letters(&mut self) {
        for letter in self.shared.collect() {
            let (out, random, now) = (&mut self.out, &mut ThreadRandom, self.desk.now);
            match letter {
                Letter::Visitor(arrival) => {
                    let Some((address, mut arrived)) = self.desk.host.admit(arrival) else { continue };
                    let first = std::mem::take(&mut arrived.first);
                    if let Ok(key) = self.mux.open(address, out, random) {
                        self.mux.send_data(key, first.len(), out, random, |body| {
                            body.copy_from_slice(&first);
                            (first.len(), ())
                        });
                        self.desk.to_peer += first.len() as u64;
                        self.desk.seat(key, arrived, first.len());
                    } else {
                        let end = super::ChannelEnd {
                            why: CloseReason::TooMany,
                            to_peer: 0,
                            from_peer: 0,
                            lived: std::time::Duration::ZERO,
                        };
                        self.desk.host.finished(arrived.stream, arrived.ticket, end);
                    }
                }
                Letter::Signal(signal) => self.mux.signal(signal, out, random),
                Letter::Probe(answer) => {
                    self.probes.retain(|probe| !probe.is_closed());
                    self.probes.push(answer);
                    self.mux.ask(now, out, random);
                }
                Letter::Drain => self.draining = true,
                Letter::Cut(why) => {
                    self.is_cut = true;
                    self.ends(why);
                }
                Letter::End(why) => self.ends(why),
            }
        }
    }

    fn ends(&mut self, why: Asked) {
        let until = later(self.desk.now, self.settings.farewell);
        self.ending.get_or_insert((why, until));
    }

    /// Reads the tunnel once; true if there may be more.
    fn read_peer(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Result<bool, TunnelEnd> {
        let mut filled = ReadBuf::new(buffer);
        match Pin::new(&mut self.socket).poll_read(cx, &mut filled) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(error)) => return Err(TunnelEnd::Io(error)),
            Poll::Ready(Ok(())) if filled.filled().is_empty() => return Err(TunnelEnd::PeerClosed),
            Poll::Ready(Ok(())) => {}
        }
        let now = self.desk.now;
        self.mux
            .receive(filled.filled_mut(), now, &mut self.out, &mut ThreadRandom, &mut self.desk)
            .map_err(TunnelEnd::Violation)?;
        if let Some(round_trip) = self.desk.pong.take() {
            self.shared.pong(now, round_trip);
            for probe in self.probes.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = probe.send(round_trip);
            }
        }
        Ok(true)
    }

    /// Serves the channels that are ready while the outbox has room. True: one of them wants more.
    fn serve_ready(&mut self, cx: &Context<'_>) -> bool {
        self.desk.collect_ready(cx);
        if self.desk.wanting.is_empty() {
            return false;
        }
        let wanting = std::mem::take(&mut self.desk.wanting);
        let share = wanting.len() > 1;
        // Who had nothing comes before who had a share: else the first few would take every turn.
        let (mut hungry, mut fed) = (Vec::new(), Vec::new());
        for slot in wanting {
            match self.desk.serve(slot, share, &mut self.mux, &mut self.out, &mut ThreadRandom) {
                Served::Done => {}
                Served::Again => fed.push(slot),
                Served::NoRoom => hungry.push(slot),
            }
        }
        let again = &mut self.desk.wanting;
        hungry.append(again);
        hungry.append(&mut fed);
        *again = hungry;
        !again.is_empty()
    }

    /// Sends the outbox; true when all of it left.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, TunnelEnd> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, self.out.unsent()) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(TunnelEnd::Io(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.out.sent(count),
                Poll::Ready(Err(error)) => return Err(TunnelEnd::Io(error)),
            }
        }
        Ok(true)
    }

    fn timers(&mut self, cx: &mut Context<'_>) -> Result<(), TunnelEnd> {
        let now = self.desk.now;
        self.mux.tick(now, &mut self.out, &mut ThreadRandom).map_err(TunnelEnd::Violation)?;
        if self.desk.seated > 0 && now >= self.next_sweep {
            self.next_sweep = later(now, sweep_interval(self.settings.idle));
            if let Some(limit) = now.checked_sub(self.settings.idle) {
                self.desk.sweep(limit, &mut self.mux, &mut self.out, &mut ThreadRandom);
            }
        }
        let mut wanted = self.mux.next_deadline();
        if self.desk.seated > 0 {
            wanted = wanted.min(self.next_sweep);
        }
        if let Some((_, until)) = self.ending {
            wanted = wanted.min(until);
        }
        // A timer that fires early costs less than one that is moved by every frame.
        if wanted < self.timer_at || now >= self.timer_at {
            self.timer_at = wanted;
            self.timer.as_mut().reset(wanted.into());
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Gives an empty outbox a whole buffer of the thread's.
    fn lend_buffer(&mut self) {
        if self.out.is_empty() && self.out.room() < scratch::BUFFER_LEN {
            if let Some(small) = self.out.reclaim() {
                scratch::give_back(small);
            }
            self.out.lend(scratch::take());
        }
    }

    /// Keeps no more of the outbox than what still has to be sent.
    fn return_buffer(&mut self) {
        if let Some(buffer) = self.out.reclaim().or_else(|| self.out.shrink(SMALL_REST)) {
            scratch::give_back(buffer);
        }
    }

    fn turns(&mut self, cx: &mut Context<'_>, incoming: &mut [u8]) -> Result<(), TunnelEnd> {
        self.desk.now = Instant::now();
        self.shared.register(cx.waker());
        if self.is_cut {
            return self.wait_for_release(cx);
        }
        let mut flushed = self.flush(cx)?;
        let mut rested = false;
        for _ in 0..TURNS {
            self.lend_buffer();
            let mail = self.shared.has_mail();
            if mail {
                self.read_letters();
                if self.is_cut {
                    self.cut(cx);
                    return self.wait_for_release(cx);
                }
            }
            let read = self.read_peer(cx, incoming)?;
            // A peer that does not read gets no more of ours; what it sends is still read.
            let more = flushed && self.serve_ready(cx);
            let sent = !self.out.is_empty();
            flushed = self.flush(cx)?;
            if !(mail || read || flushed && (more || sent)) {
                rested = true;
                break;
            }
        }
        if !rested {
            come_back_after_the_poller(cx);
        }
        // Before its timers: one of thousands that end at once has none to move.
        self.end_if_asked(flushed)?;
        self.timers(cx)?;
        flushed = self.flush(cx)?;
        self.end_if_asked(flushed)?;
        if self.draining && self.desk.seated == 0 && flushed && !self.shared.has_mail() {
            return Err(TunnelEnd::Asked(Asked::Drained));
        }
        Ok(())
    }

    fn end_if_asked(&self, flushed: bool) -> Result<(), TunnelEnd> {
        match self.ending {
            Some((why, until)) if flushed || self.desk.now >= until => Err(TunnelEnd::Asked(why)),
            _ => Ok(()),
        }
    }

    fn cut(&mut self, cx: &mut Context<'_>) {
        // Done at once; and a connection that the peer has left cannot be closed a second time.
        let _ = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.miss(self.shared.close());
    }

    /// What the end costs besides comes when nobody else has to be cut before.
    fn wait_for_release(&mut self, cx: &mut Context<'_>) -> Result<(), TunnelEnd> {
        let Some((why, until)) = self.ending else { return Ok(()) };
        if self.timer_at != until {
            self.timer_at = until;
            self.timer.as_mut().reset(until.into());
        }
        if self.shared.is_released() || self.timer.as_mut().poll(cx).is_ready() {
            return Err(TunnelEnd::Asked(why));
        }
        Ok(())
    }

    /// Visitors who came too late go back to where they came from.
    fn miss(&mut self, letters: VecDeque<Letter<H::Arrival>>) {
        for letter in letters {
            if let Letter::Visitor(arrival) = letter {
                self.desk.host.missed(arrival);
            }
        }
    }

    fn publish_figures(&self) {
        let shared = &self.shared;
        shared.channels.store(self.desk.seated, Ordering::Relaxed);
        shared.to_peer.store(self.desk.to_peer, Ordering::Relaxed);
        shared.from_peer.store(self.desk.from_peer, Ordering::Relaxed);
        shared.waiting.store(self.mux.waiting_in_all(), Ordering::Relaxed);
    }
}

/// Wakes the task once the runtime has asked the kernel what is new. A plain wake would let a tunnel that
/// never rests run dozens of times before: megabytes would leave while the PAUSE against them waits.
fn come_back_after_the_poller(cx: &mut Context<'_>) {
    let yielding = std::pin::pin!(tokio::task::yield_now());
    // Its first poll leaves the waker with the runtime; a second is never needed.
    if yielding.poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

// Nothing in it is pinned in place but the timer, which is boxed.
impl<H: Host> Unpin for Tunnel<H> {}

impl<H: Host> Future for Tunnel<H> {
    type Output = (TunnelEnd, Counts);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let tunnel = &mut *self;
        let mut incoming = scratch::take();
        let ended = tunnel.turns(cx, &mut incoming);
        scratch::give_back(incoming);
        tunnel.return_buffer();
        let ended = match ended {
            Ok(()) => {
                tunnel.publish_figures();
                return Poll::Pending;
            }
            Err(ended) => ended,
        };
        let too_late = tunnel.shared.leave();
        tunnel.miss(too_late);
        tunnel.desk.finish_all(CloseReason::TunnelEnded);
        tunnel.publish_figures();
        Poll::Ready((ended, tunnel.mux.counts()))
    }
}

impl<H: Host> Drop for Tunnel<H> {
    fn drop(&mut self) {
        // A tunnel that is dropped rather than ended takes no more letters either.
        drop(self.shared.leave());
    }
}
