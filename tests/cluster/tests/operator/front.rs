//! What stands before several proxies, as a load balancer does: who asks for a session may be led to one proxy, and the
//! tunnel that follows to another.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use latchkey_cluster_tests::TestError;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What TLS begins with. A tunnel begins with a token.
const TLS: u8 = 0x16;

/// One address for agents.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) here: SocketAddr,
    ways: Arc<Mutex<Option<Ways>>>,
    carrying: JoinHandle<()>,
}

/// Where new connections go.
#[derive(Debug, Clone, Copy)]
struct Ways {
    sessions: SocketAddr,
    tunnels: SocketAddr,
}

impl Front {
    /// One that leads nowhere yet.
    pub(crate) async fn open() -> Result<Self, TestError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (here, ways) = (listener.local_addr()?, Arc::default());
        let carrying = tokio::spawn(carry(listener, Arc::clone(&ways)));
        Ok(Self { here, ways, carrying })
    }

    /// New connections go here; those there are stay where they are.
    pub(crate) fn lead(&self, sessions: SocketAddr, tunnels: SocketAddr) {
        *self.ways.lock().unwrap() = Some(Ways { sessions, tunnels });
    }

    /// New connections are closed.
    pub(crate) fn lead_nowhere(&self) {
        *self.ways.lock().unwrap() = None;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "connections of a test are few")]
async fn carry(listener: TcpListener, ways: Arc<Mutex<Option<Ways>>>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((mut here, _)) = listener.accept().await {
        let ways = *ways.lock().unwrap();
        connections.spawn(async move {
            let (Some(ways), mut first) = (ways, [0]) else { return };
            let Ok(1) = here.peek(&mut first).await else { return };
            let way = if first == [TLS] { ways.sessions } else { ways.tunnels };
            if let Ok(mut there) = TcpStream::connect(way).await {
                let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
            }
        });
    }
}
