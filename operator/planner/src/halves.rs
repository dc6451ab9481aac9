//! Work about many instances, shared between two threads. What comes out does not depend on it.

use std::panic::resume_unwind;
use std::thread;

/// From how many on a second thread is worth its start.
const ENOUGH: usize = 4_096;

/// Does the work on a list, in two halves at once where it is long: what came out for each part, in order.
pub(crate) fn in_halves<T: Sync, R: Send>(all: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    if all.len() < ENOUGH {
        return vec![work(all)];
    }
    let (front, back) = all.split_at(all.len() / 2);
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, || work(back));
        let front = work(front);
        let back = match other {
            Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // No second thread to be had: then one after the other.
            Err(_) => work(back),
        };
        vec![front, back]
    })
}

/// Does two pieces of work at once where there is `much` to do, else one after the other.
pub(crate) fn both<A: Send, B>(
    much: usize,
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> (A, B) {
    if much < ENOUGH {
        return (one(), other());
    }
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| resume_unwind(panic)), other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_results_are_there_however_much_there_is() {
        for much in [0, ENOUGH] {
            assert_eq!(both(much, || 1, || "two"), (1, "two"));
        }
    }

    #[test]
    fn results_are_in_order_however_long_the_list() {
        for length in [0, 1, ENOUGH - 1, ENOUGH, ENOUGH + 1] {
            let all: Vec<usize> = (0..length).collect();
            let doubled = in_halves(&all, |part| part.iter().map(|each| each * 2).collect::<Vec<_>>());
            assert!(doubled.into_iter().flatten().eq((0..length).map(|each| each * 2)));
        }
    }
}
