//! A way to the API server that can be cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use latchkey_cluster_tests::{ControlPlane, TestError};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A way to the API server that can be cut, and mended.
pub(crate) struct Line {
    /// Whatever it asks goes this way, and is not tried again by itself: that would hide what is tested.
    pub(crate) client: Client,
    target: Arc<str>,
    pub(crate) here: SocketAddr,
    carrying: Mutex<JoinHandle<()>>,
}

impl Line {
    pub(crate) async fn open(control_plane: &ControlPlane) -> Result<Self, TestError> {
        let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig())?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        let host = config.cluster_url.host().unwrap_or_default().to_owned();
        let target = format!("{host}:{}", config.cluster_url.port_u16().unwrap_or(443)).into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let here = listener.local_addr()?;
        config.tls_server_name.get_or_insert(host);
        config.cluster_url = format!("https://{here}").parse()?;
        let carrying = Mutex::new(tokio::spawn(carry(listener, Arc::clone(&target))));
        Ok(Self { client: Client::try_from(config)?, target, here, carrying })
    }

    /// Ends every connection and takes no more.
    pub(crate) async fn cut(&self) {
        let carrying = std::mem::replace(&mut *self.carrying.lock().unwrap(), tokio::spawn(async {}));
        carrying.abort();
        // Only then is the port free.
        let _ = carrying.await;
    }

    /// Takes connections again.
    pub(crate) async fn mend(&self) -> Result<(), TestError> {
        let listener = TcpListener::bind(self.here).await?;
        *self.carrying.lock().unwrap() = tokio::spawn(carry(listener, Arc::clone(&self.target)));
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.carrying.lock().unwrap().abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "connections of a test are few")]
async fn carry(listener: TcpListener, target: Arc<str>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((mut here, _)) = listener.accept().await {
        let target = Arc::clone(&target);
        connections.spawn(async move {
            if let Ok(mut there) = TcpStream::connect(&*target).await {
                let _ = copy_bidirectional(&mut here, &mut there).await;
            }
        });
    }
}
