//! A TCP line on loopback that can be cut and mended, and that can stop in the middle of what comes down.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use latchkey_cluster_tests::TestError;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Most bytes that pass at once.
const PIECE: usize = 16 * 1024;

/// A line to one address.
#[derive(Debug)]
pub(crate) struct Cable {
    /// Where it begins.
    pub(crate) here: SocketAddr,
    target: Arc<str>,
    meter: Arc<watch::Sender<Meter>>,
    carrying: Mutex<JoinHandle<()>>,
}

/// What came down the line, from its target.
#[derive(Debug, Clone, Copy)]
struct Meter {
    passed: u64,
    /// No more than this passes.
    until: u64,
}

impl Cable {
    /// A line to `host:port`.
    pub(crate) async fn to(target: &str) -> Result<Self, TestError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let here = listener.local_addr()?;
        let (target, meter) = (Arc::from(target), Arc::new(watch::Sender::new(OPEN)));
        let carrying = Mutex::new(tokio::spawn(carry(listener, Arc::clone(&target), Arc::clone(&meter))));
        Ok(Self { here, target, meter, carrying })
    }

    /// Ends every connection and takes no more.
    pub(crate) async fn cut(&self) {
        let carrying = std::mem::replace(&mut *self.carrying.lock().unwrap(), tokio::spawn(async {}));
        carrying.abort();
        // Only then is the port free.
        let _ = carrying.await;
    }

    /// Takes connections again, and counts from nothing.
    pub(crate) async fn mend(&self) -> Result<(), TestError> {
        let listener = TcpListener::bind(self.here).await?;
        self.meter.send_replace(OPEN);
        let carrying = carry(listener, Arc::clone(&self.target), Arc::clone(&self.meter));
        *self.carrying.lock().unwrap() = tokio::spawn(carrying);
        Ok(())
    }

    /// Bytes that came down.
    pub(crate) fn passed(&self) -> u64 {
        self.meter.borrow().passed
    }

    /// So many bytes may still come down; what follows is held back, with the connection open.
    pub(crate) fn hold_after(&self, bytes: u64) {
        self.meter.send_modify(|meter| meter.until = meter.passed + bytes);
    }

    /// Is anything held back, or would be?
    pub(crate) fn holds(&self) -> bool {
        let meter = *self.meter.borrow();
        meter.passed >= meter.until
    }
}

const OPEN: Meter = Meter { passed: 0, until: u64::MAX };

impl Drop for Cable {
    fn drop(&mut self) {
        self.carrying.lock().unwrap().abort();
    }
}

async fn carry(listener: TcpListener, target: Arc<str>, meter: Arc<watch::Sender<Meter>>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((here, _)) = listener.accept().await {
        let (target, meter) = (Arc::clone(&target), Arc::clone(&meter));
        connections.spawn(async move {
            let Ok(there) = TcpStream::connect(&*target).await else { return };
            let ((mut up, mut to_visitor), (down, mut to_target)) = (here.into_split(), there.into_split());
            // Either end's close is the end.
            tokio::select! {
                _ = copy(&mut up, &mut to_target) => {}
                () = come_down(down, &mut to_visitor, &meter) => {}
            }
        });
    }
}

async fn come_down(
    mut from: impl AsyncReadExt + Unpin,
    to: &mut (impl AsyncWriteExt + Unpin),
    meter: &watch::Sender<Meter>,
) {
    let mut piece = vec![0; PIECE];
    let mut may = meter.subscribe();
    loop {
        let Ok(now) = may.wait_for(|meter| meter.passed < meter.until).await.map(|meter| *meter) else {
            return;
        };
        let room = usize::try_from(now.until - now.passed).unwrap_or(PIECE).min(PIECE);
        let Ok(read @ 1..) = from.read(&mut piece[..room]).await else { return };
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
        meter.send_modify(|meter| meter.passed += read as u64);
    }
}
