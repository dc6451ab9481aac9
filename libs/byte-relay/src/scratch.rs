//! Large buffers, a few for each thread, none for each idle connection.

use std::cell::RefCell;

/// Bytes of a buffer. Large reads are what makes a relay cheap: on loopback, 256 KiB beat 64 KiB and splice(2).
pub const BUFFER_LEN: usize = 256 << 10;

/// Buffers a thread keeps; a few more may be in use.
const KEPT: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`BUFFER_LEN`] initialised bytes (of anything).
pub fn take() -> Vec<u8> {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER_LEN])
}

/// Gives a buffer back to this thread; one of another size is dropped.
pub fn give_back(buffer: Vec<u8>) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() < KEPT && buffer.len() == BUFFER_LEN {
            pool.push(buffer);
        }
    });
}
