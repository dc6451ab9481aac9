//! Connections that have said their last words, closed in batches.
//!
//! To wait for the other side's own end costs a task, a timer and an event for each connection. Here it
//! costs a place in a queue: our direction is ended at once, and after a moment, when the last words have
//! long arrived, whatever came meanwhile is read and dropped and the socket closed. Without that
//! reading the close would be a reset, which can overtake the words.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{ErrorKind, Read},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// How long a connection stays after our last word.
pub const MOMENT: Duration = Duration::from_secs(1);
/// Connections a thread lets stay; more, and the oldest go early.
const MAX: usize = 1024;
/// What is read of one before it is closed.
const ALLOWANCE: usize = 256 << 10;

#[derive(Default)]
struct Queue {
    leaving: VecDeque<(Instant, TcpStream)>,
    swept: bool,
}

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
}

/// Ends our direction of a non-blocking connection now, and closes it in a moment. Only for tasks of a
/// current-thread runtime: the queue is the thread's, and so is the task that empties it.
pub fn leave(stream: TcpStream) {
    if stream.shutdown(Shutdown::Write).is_err() {
        // The other side is gone already.
        return;
    }
    let now = Instant::now();
    let start_sweeping = QUEUE.with_borrow_mut(|queue| {
        queue.leaving.push_back((now, stream));
        close_due(queue, now);
        !std::mem::replace(&mut queue.swept, true)
    });
    if start_sweeping {
        drop(tokio::spawn(sweep()));
    }
}

/// Connections that wait to be closed on this thread.
pub fn count() -> usize {
    QUEUE.with_borrow(|queue| queue.leaving.len())
}

async fn sweep() {
    loop {
        sleep(MOMENT / 2).await;
        let empty = QUEUE.with_borrow_mut(|queue| {
            close_due(queue, Instant::now());
            queue.swept = !queue.leaving.is_empty();
            !queue.swept
        });
        if empty {
            return;
        }
    }
}

fn close_due(queue: &mut Queue, now: Instant) {
    while let Some((since, _)) = queue.leaving.front()
        && (queue.leaving.len() > MAX || now.saturating_duration_since(*since) >= MOMENT)
    {
        if let Some((_, stream)) = queue.leaving.pop_front() {
            read_and_drop(&stream);
        }
    }
}

fn read_and_drop(mut stream: &TcpStream) {
    let mut buffer = [0; 4096];
    let mut left = ALLOWANCE;
    while left > 0 {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let visitor = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (visitor, ours)
    }

    #[tokio::test]
    async fn the_last_words_arrive_although_the_visitor_talks_on() {
        let (mut visitor, mut ours) = pair();
        visitor.write_all(b"unread").unwrap();
        ours.write_all(b"the last words").unwrap();
        leave(ours);
        visitor.write_all(b"more").unwrap();
        assert_eq!(count(), 1);
        tokio::time::sleep(MOMENT * 2).await;
        assert_eq!(count(), 0, "closed after a moment");
        let mut heard = Vec::new();
        visitor.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"the last words");
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_and_no_more() {
        let mut visitors = Vec::new();
        for _ in 0..MAX + 20 {
            let (visitor, ours) = pair();
            visitors.push(visitor);
            leave(ours);
        }
        assert_eq!(count(), MAX);
        assert_eq!(visitors[0].read(&mut [0]).unwrap(), 0);
    }
}
