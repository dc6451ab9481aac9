//! The threads that move bytes: each runs its own reactor, and a tunnel stays on the one it was given.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// One thread of the data path.
#[derive(Clone, Debug)]
pub struct DataThread {
    runtime: Handle,
    tunnels: Arc<AtomicUsize>,
}

/// All of them. They end with the process.
#[derive(Clone, Debug)]
pub struct DataThreads(Arc<[DataThread]>);

/// A tunnel's place on a thread; counts until it is dropped.
#[derive(Debug)]
pub struct Place {
    thread: usize,
    tunnels: Arc<AtomicUsize>,
}

impl Place {
    /// The number of the thread.
    pub fn thread(&self) -> usize {
        self.thread
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

impl DataThreads {
    /// Starts `count` threads.
    pub fn start(count: usize) -> io::Result<Self> {
        (0..count.max(1)).map(start_one).collect::<io::Result<Arc<[_]>>>().map(Self)
    }

    /// The first one, which also accepts connections.
    pub fn front(&self) -> Option<Handle> {
        self.0.first().map(|thread| thread.runtime.clone())
    }

    /// The thread with the fewest tunnels, the first one on a tie: a lone tunnel then lives where its
    /// visitors are accepted.
    pub fn choose(&self) -> Option<(Handle, Place)> {
        let all = self.0.iter().enumerate();
        let (number, thread) = all.min_by_key(|(_, thread)| thread.tunnels.load(Ordering::Relaxed))?;
        thread.tunnels.fetch_add(1, Ordering::Relaxed);
        Some((thread.runtime.clone(), Place { thread: number, tunnels: thread.tunnels.clone() }))
    }

    /// The thread of that number.
    pub fn runtime(&self, number: usize) -> Option<&Handle> {
        self.0.get(number).map(|thread| &thread.runtime)
    }
}

fn start_one(number: usize) -> io::Result<DataThread> {
    // Many events a look: what is ready together is batched together.
    let runtime = Builder::new_current_thread().enable_all().max_io_events_per_tick(1024).build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(format!("data-{number}")).spawn(move || {
        // Nobody holds the other end: the thread drives its tasks until the process ends.
        let (_forever, never) = oneshot::channel::<()>();
        let _ = runtime.block_on(never);
    })?;
    Ok(DataThread { runtime: handle, tunnels: Arc::default() })
}
