//! What leads to the proxies: the public Service, as far as it matters here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use latchkey_cluster_tests::TestError;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Takes each new connection to the next pod that is ready; those that are open stay where they are. It ends when it is
/// dropped.
pub(super) struct Balancer(JoinHandle<()>);

impl Drop for Balancer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Balancer {
    pub(super) async fn start(
        here: SocketAddr,
        port: u16,
        endpoints: impl Fn() -> Vec<IpAddr> + Send + 'static,
    ) -> Result<Self, TestError> {
        let listener = TcpListener::bind(here).await?;
        let turn = Arc::new(AtomicUsize::new(0));
        Ok(Self(tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let pods = endpoints();
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                if let Some(pod) = pods.get(turn % pods.len().max(1)) {
                    connections.spawn(carry(stream, SocketAddr::new(*pod, port)));
                }
                while connections.try_join_next().is_some() {}
            }
        })))
    }
}

#[expect(clippy::disallowed_methods, reason = "connections of a test are few")]
async fn carry(mut here: TcpStream, pod: SocketAddr) {
    if let Ok(mut there) = TcpStream::connect(pod).await {
        let _ = copy_bidirectional(&mut here, &mut there).await;
    }
}
